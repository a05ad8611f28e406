//! The calls of the service.

use std::{pin::Pin, sync::Arc};

use annals_core::Store;
use futures::Stream;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    catalog::{self, Group},
    connection,
    handle::{ConsumerName, GroupHandle},
    info::info,
    name::GroupName,
    parked,
    request::{listed_source, requested_group, required},
    running::RunningGroups,
    settings::GroupFilter,
};
use crate::{
    auth,
    open_calls::OpenCalls,
    proto::{
        persistent::{
            CreateReq, CreateResp, DeleteReq, DeleteResp, GetInfoReq, GetInfoResp, ListReq,
            ListResp, ReadReq, ReadResp, ReplayParkedReq, ReplayParkedResp, SubscriptionInfo,
            UpdateReq, UpdateResp, persistent_subscriptions_server::PersistentSubscriptions,
            read_req::Content, replay_parked_req::options::StopAtOption,
        },
        shared::Empty,
    },
    status::status,
    tombstones::Tombstones,
};

/// Serves the groups of a store.
#[derive(Clone, Debug)]
pub(crate) struct PersistentService {
    store: Arc<dyn Store>,
    tombstones: Tombstones,
    open_calls: OpenCalls,
    running: RunningGroups,
}

impl PersistentService {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        tombstones: Tombstones,
        open_calls: OpenCalls,
    ) -> Self {
        Self { store, tombstones, open_calls, running: RunningGroups::default() }
    }

    /// The task of a group. Starts one if the group has none.
    fn start(&self, group: Group) -> Result<GroupHandle, Status> {
        self.running.start(&self.store, &self.tombstones, group)
    }

    async fn info(&self, group: &Group) -> Result<SubscriptionInfo, Status> {
        info(&*self.store, group, self.running.counts(&group.name).await).await
    }

    /// Ends the group's task, and disconnects its consumers.
    async fn stop(&self, name: &GroupName) {
        self.running.stop(name, name.dropped()).await;
    }

    /// Removes what a group has stored besides its entry in the list.
    async fn remove_state(&self, name: &GroupName) -> Result<(), Status> {
        let (store, subscriber) = (&*self.store, name.subscriber()?);
        store.reset_checkpoint(&subscriber, None).await.map_err(|e| status(&e))?;
        parked::remove(store, name).await
    }
}

type ReadAnswers = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

#[tonic::async_trait]
impl PersistentSubscriptions for PersistentService {
    async fn create(&self, request: Request<CreateReq>) -> Result<Response<CreateResp>, Status> {
        let group = requested_group(&*self.store, request.into_inner().options).await?;
        let name = &group.name;
        // Refuse now what would fail when a consumer connects.
        name.subscriber()?;
        name.parked()?;
        group.filter.as_ref().map(GroupFilter::compile).transpose()?;
        let exists = |groups: &[Group]| match groups.iter().any(|other| other.name == *name) {
            true => {
                let exception = "persistent-subscription-exists";
                Err(name.error(Code::AlreadyExists, exception, "exists."))
            }
            false => Ok(()),
        };
        exists(&catalog::groups(&*self.store).await?)?;
        // A group of this name may have been deleted by a gateway that died before it was done.
        self.stop(name).await;
        self.remove_state(name).await?;
        catalog::update(&*self.store, |groups| {
            exists(groups)?;
            groups.push(group.clone());
            Ok(())
        })
        .await?;
        self.start(group)?;
        Ok(Response::new(CreateResp {}))
    }

    async fn update(&self, request: Request<UpdateReq>) -> Result<Response<UpdateResp>, Status> {
        let Group { name, first, start_from, settings, .. } =
            requested_group(&*self.store, request.into_inner().options).await?;
        catalog::update(&*self.store, |groups| {
            let group = groups.iter_mut().find(|group| group.name == name);
            let group = group.ok_or_else(|| name.missing())?;
            // The start only matters until the group has a checkpoint, which is kept.
            (group.first, group.start_from) = (first, start_from.clone());
            group.settings = settings.clone();
            Ok(())
        })
        .await?;
        // The group's next task has the new settings.
        self.stop(&name).await;
        self.start(catalog::group(&*self.store, &name).await?)?;
        Ok(Response::new(UpdateResp {}))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        let name = GroupName::try_from(required(request.into_inner().options)?)?;
        catalog::update(&*self.store, |groups| {
            let before = groups.len();
            groups.retain(|group| group.name != name);
            if groups.len() == before { Err(name.missing()) } else { Ok(()) }
        })
        .await?;
        self.stop(&name).await;
        self.remove_state(&name).await?;
        Ok(Response::new(DeleteResp {}))
    }

    type ReadStream = ReadAnswers;

    async fn read(
        &self,
        request: Request<Streaming<ReadReq>>,
    ) -> Result<Response<ReadAnswers>, Status> {
        let open_call = self.open_calls.admit()?;
        let who = consumer_name(request.metadata());
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.content);
        let Some(Content::Options(options)) = first else {
            let message = "the first message of a subscription must be its options";
            return Err(Status::invalid_argument(message));
        };
        let name = GroupName::try_from(options.clone())?;
        let group = catalog::group(&*self.store, &name).await?;
        let group = self.start(group)?;
        let answers = connection::connect(group, &name, &options, who, requests).await?;
        Ok(Response::new(Box::pin(open_call.hold_until_stopped(answers))))
    }

    async fn get_info(
        &self,
        request: Request<GetInfoReq>,
    ) -> Result<Response<GetInfoResp>, Status> {
        let name = GroupName::try_from(required(request.into_inner().options)?)?;
        let group = catalog::group(&*self.store, &name).await?;
        let subscription_info = Some(self.info(&group).await?);
        Ok(Response::new(GetInfoResp { subscription_info }))
    }

    async fn replay_parked(
        &self,
        request: Request<ReplayParkedReq>,
    ) -> Result<Response<ReplayParkedResp>, Status> {
        let options = required(request.into_inner().options)?;
        let stop_at = match options.stop_at_option {
            Some(StopAtOption::StopAt(revision)) => Some(revision),
            Some(StopAtOption::NoLimit(_)) => None,
            None => return Err(Status::invalid_argument("where the replay stops is missing")),
        };
        let name = GroupName::try_from(options)?;
        let group = catalog::group(&*self.store, &name).await?;
        let negative =
            |_| name.failed("Cannot stop replaying parked message at a negative version.");
        let end = stop_at.map(u64::try_from).transpose().map_err(negative)?;
        self.start(group)?.replay(end).await?;
        Ok(Response::new(ReplayParkedResp {}))
    }

    async fn list(&self, request: Request<ListReq>) -> Result<Response<ListResp>, Status> {
        let source = listed_source(required(request.into_inner().options)?)?;
        let mut subscriptions = Vec::new();
        for group in catalog::groups(&*self.store).await? {
            if source.as_ref().is_none_or(|source| group.name.source == *source) {
                subscriptions.push(self.info(&group).await?);
            }
        }
        match source {
            Some(source) if subscriptions.is_empty() => {
                Err(GroupName { source, group: String::new() }.missing())
            }
            _ => Ok(Response::new(ListResp { subscriptions })),
        }
    }

    async fn restart_subsystem(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        let names = self.running.names();
        for name in &names {
            self.stop(name).await;
        }
        for group in catalog::groups(&*self.store).await? {
            if names.contains(&group.name) {
                self.start(group)?;
            }
        }
        Ok(Response::new(Empty {}))
    }
}

/// Who a consumer is, by the headers of its call. EventStoreDB calls a consumer without a user `system`.
fn consumer_name(headers: &MetadataMap) -> ConsumerName {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    ConsumerName {
        user: auth::user(headers).unwrap_or_else(|| "system".to_owned()),
        connection: header("connection-name").unwrap_or("<unknown>").to_owned(),
    }
}
