//! The service `PersistentSubscriptions`: groups of consumers that share the events of a stream or
//! of `$all`, and whose progress is kept here.
//!
//! A group is run by one gateway: where several stand before one store, each gives all events to the
//! consumers that are connected to it.

mod config;
mod group;
mod info;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use annals_core::{EventStoreExt, Store};
use futures::{Stream, StreamExt};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    names::Target,
    open::Open,
    proto::{
        persistent::{
            CreateReq, CreateResp, DeleteReq, DeleteResp, GetInfoReq, GetInfoResp, GroupOptions,
            ListReq, ListResp, ReadReq, ReadResp, ReplayParkedReq, ReplayParkedResp,
            SubscriptionInfo, UpdateReq, UpdateResp, delete_req, get_info_req,
            group_options::StreamOption, list_req,
            persistent_subscriptions_server::PersistentSubscriptions, read_req, read_resp,
            replay_parked_req,
        },
        shared::{Empty, SubscriptionConfirmation, all_options::FilterOption},
    },
    source::From,
    status::status,
    wire::{Ids, read_event, read_id},
};
use config::{Group, GroupFilter, GroupName};
use group::{Action, Command, Worker};
use info::{Counts, info, place};

/// Serves the groups of a store.
#[derive(Clone, Debug)]
pub(crate) struct PersistentService {
    store: Arc<dyn Store>,
    open: Open,
    /// The tasks of groups that somebody was connected to.
    running: Arc<Mutex<HashMap<GroupName, mpsc::Sender<Command>>>>,
}

impl PersistentService {
    pub(crate) fn new(store: Arc<dyn Store>, open: Open) -> Self {
        Self { store, open, running: Arc::default() }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<GroupName, mpsc::Sender<Command>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task of a group, which is started where there is none.
    fn worker(&self, group: Group) -> mpsc::Sender<Command> {
        let mut running = self.running();
        match running.get(&group.name) {
            Some(worker) if !worker.is_closed() => worker.clone(),
            _ => {
                let name = group.name.clone();
                let worker = Worker::start(self.store.clone(), group);
                running.insert(name, worker.clone());
                worker
            }
        }
    }

    /// Ends the task of a group, if there is one, and waits until it has.
    async fn stop(&self, name: &GroupName, why: Status) {
        let worker = self.running().remove(name);
        if let Some(worker) = worker {
            let (reply, stopped) = oneshot::channel();
            if worker.send(Command::Stop(why, reply)).await.is_ok() {
                // Where it is gone already, so much the better.
                let _ = stopped.await;
            }
        }
    }

    async fn counts(&self, name: &GroupName) -> Option<Counts> {
        let worker = self.running().get(name).cloned()?;
        let (reply, counts) = oneshot::channel();
        worker.send(Command::Counts(reply)).await.ok()?;
        counts.await.ok()
    }

    async fn info(&self, group: &Group) -> Result<SubscriptionInfo, Status> {
        info(&*self.store, group, self.counts(&group.name).await).await
    }

    /// The group that is to be, as creating and updating are told it.
    #[allow(deprecated, reason = "clients of old servers have it so")]
    async fn asked(&self, options: Option<GroupOptions>) -> Result<Group, Status> {
        let GroupOptions { stream_option, stream_identifier, group_name, settings } =
            required(options)?;
        let settings = required(settings)?;
        let (name, start, filter) = match stream_option {
            Some(StreamOption::All(all)) => {
                let filter = match all.filter_option {
                    Some(FilterOption::Filter(filter)) => GroupFilter::new(filter),
                    _ => None,
                };
                (GroupName::on_all(group_name)?, From::in_all(all.all_option), filter)
            }
            Some(StreamOption::Stream(stream)) => {
                let name = GroupName::on_stream(stream.stream_identifier.as_ref(), group_name)?;
                (name, From::in_stream(stream.revision_option), None)
            }
            None => {
                let name = GroupName::on_stream(stream_identifier.as_ref(), group_name)?;
                (name, old_start(settings.revision), None)
            }
        };
        let settings = settings.try_into()?;
        let (first, start_from) = (self.first(start, &name).await?, start_text(start, &name));
        Ok(Group { name, first, start_from, filter, settings })
    }

    /// The first revision or position that a group gets.
    async fn first(&self, start: From, name: &GroupName) -> Result<u64, Status> {
        match (start, name.target()?) {
            (From::Start, _) => Ok(0),
            (From::At(here), _) => Ok(here),
            (From::End, Target::Stream(stream)) => {
                let info = self.store.stream_info(&stream).await.map_err(|e| status(&e))?;
                Ok(info.version.get())
            }
            (From::End, _) => {
                Ok(self.store.last_position().await.map_err(|e| status(&e))?.get() + 1)
            }
        }
    }
}

/// Where a group begins, as clients of old servers say it.
fn old_start(revision: u64) -> From {
    match revision {
        0 => From::Start,
        u64::MAX => From::End,
        revision => From::At(revision),
    }
}

/// Where a group begins, as clients are told it.
fn start_text(start: From, name: &GroupName) -> String {
    let number = match start {
        From::Start => 0,
        From::End => -1,
        From::At(here) => i64::try_from(here).unwrap_or(i64::MAX),
    };
    place(name, number)
}

fn dropped(name: &GroupName, why: &str) -> Status {
    name.error(Code::Cancelled, "persistent-subscription-dropped", why)
}

fn required<T>(options: Option<T>) -> Result<T, Status> {
    options.ok_or_else(|| Status::invalid_argument("the options are missing"))
}

type Answers = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

#[tonic::async_trait]
impl PersistentSubscriptions for PersistentService {
    async fn create(&self, request: Request<CreateReq>) -> Result<Response<CreateResp>, Status> {
        let group = self.asked(request.into_inner().options).await?;
        let name = &group.name;
        name.subscriber()?;
        name.parked()?;
        group.filter.as_ref().map(GroupFilter::compile).transpose()?;
        config::change(&*self.store, |groups| {
            if groups.iter().any(|other| other.name == *name) {
                let exception = "persistent-subscription-exists";
                return Err(name.error(Code::AlreadyExists, exception, "already exists."));
            }
            groups.push(group.clone());
            Ok(())
        })
        .await?;
        Ok(Response::new(CreateResp {}))
    }

    async fn update(&self, request: Request<UpdateReq>) -> Result<Response<UpdateResp>, Status> {
        let Group { name, first, start_from, settings, .. } =
            self.asked(request.into_inner().options).await?;
        config::change(&*self.store, |groups| {
            let found = groups.iter_mut().find(|group| group.name == name);
            let group = found.ok_or_else(|| name.missing())?;
            // Where it begins matters only until it has made progress, which is kept.
            (group.first, group.start_from) = (first, start_from.clone());
            group.settings = settings.clone();
            Ok(())
        })
        .await?;
        // Consumers connect again, and find the new settings.
        self.stop(&name, dropped(&name, "was updated.")).await;
        Ok(Response::new(UpdateResp {}))
    }

    async fn delete(&self, request: Request<DeleteReq>) -> Result<Response<DeleteResp>, Status> {
        use delete_req::options::StreamOption;
        let options = required(request.into_inner().options)?;
        let name = match required(options.stream_option)? {
            StreamOption::StreamIdentifier(stream) => {
                GroupName::on_stream(Some(&stream), options.group_name)?
            }
            StreamOption::All(_) => GroupName::on_all(options.group_name)?,
        };
        config::change(&*self.store, |groups| {
            let before = groups.len();
            groups.retain(|group| group.name != name);
            if groups.len() == before { Err(name.missing()) } else { Ok(()) }
        })
        .await?;
        self.stop(&name, dropped(&name, "was deleted.")).await;
        let store = &self.store;
        let forget = async {
            store.reset_checkpoint(&name.subscriber()?, None).await.map_err(|e| status(&e))?;
            let parked = name.parked()?;
            store.delete(&parked, annals_core::ExpectedVersion::Any).await.map_err(|e| status(&e))
        };
        forget.await?;
        Ok(Response::new(DeleteResp {}))
    }

    type ReadStream = Answers;

    async fn read(
        &self,
        request: Request<Streaming<ReadReq>>,
    ) -> Result<Response<Answers>, Status> {
        use read_req::{Content, options::StreamOption};
        let permit = self.open.permit()?;
        let mut requests = request.into_inner();
        let Some(Content::Options(options)) = requests.message().await?.and_then(|r| r.content)
        else {
            return Err(Status::invalid_argument("a subscription begins with its options"));
        };
        let name = match required(options.stream_option)? {
            StreamOption::StreamIdentifier(stream) => {
                GroupName::on_stream(Some(&stream), options.group_name)?
            }
            StreamOption::All(_) => GroupName::on_all(options.group_name)?,
        };
        let ids = Ids::asked(options.uuid_option);
        let worker = self.worker(config::group(&*self.store, &name).await?);
        let slots = usize::try_from(options.buffer_size).unwrap_or(1).clamp(1, MOST_SLOTS);
        // One more than it can have: for the error with which it ends.
        let (events, given) = mpsc::channel(slots + 1);
        let (reply, connected) = oneshot::channel();
        let gone = |_| Status::unavailable("the group has just ended; connect again");
        let connect = Command::Connect { slots, events, reply };
        worker.send(connect).await.map_err(|_| Status::unavailable("the group has just ended"))?;
        let number = connected.await.map_err(gone)??;
        let answers = tokio::spawn(answered(requests, worker.clone(), number)).abort_handle();
        let guard = Guard { worker, number, answers };
        // As EventStoreDB has it: one of the clients compares.
        let subscription_id = format!("{}::{}", name.source, name.group);
        let confirmation = SubscriptionConfirmation { subscription_id };
        let first =
            ReadResp { content: Some(read_resp::Content::SubscriptionConfirmation(confirmation)) };
        let events = ReceiverStream::new(given).map(move |event| {
            let _connected = &guard;
            let (found, retries) = event?;
            let event = read_event(found, ids, Some(retries));
            Ok(ReadResp { content: Some(read_resp::Content::Event(event)) })
        });
        let answers = futures::stream::iter([Ok(first)]).chain(events);
        Ok(Response::new(Box::pin(permit.hold_until_closing(answers))))
    }

    async fn get_info(
        &self,
        request: Request<GetInfoReq>,
    ) -> Result<Response<GetInfoResp>, Status> {
        use get_info_req::options::StreamOption;
        let options = required(request.into_inner().options)?;
        let name = match required(options.stream_option)? {
            StreamOption::StreamIdentifier(stream) => {
                GroupName::on_stream(Some(&stream), options.group_name)?
            }
            StreamOption::All(_) => GroupName::on_all(options.group_name)?,
        };
        let group = config::group(&*self.store, &name).await?;
        let subscription_info = Some(self.info(&group).await?);
        Ok(Response::new(GetInfoResp { subscription_info }))
    }

    async fn replay_parked(
        &self,
        request: Request<ReplayParkedReq>,
    ) -> Result<Response<ReplayParkedResp>, Status> {
        use replay_parked_req::options::{StopAtOption, StreamOption};
        let options = required(request.into_inner().options)?;
        let name = match required(options.stream_option)? {
            StreamOption::StreamIdentifier(stream) => {
                GroupName::on_stream(Some(&stream), options.group_name)?
            }
            StreamOption::All(_) => GroupName::on_all(options.group_name)?,
        };
        let most = match options.stop_at_option {
            Some(StopAtOption::StopAt(count)) => u64::try_from(count).unwrap_or(0),
            _ => u64::MAX,
        };
        let worker = self.worker(config::group(&*self.store, &name).await?);
        let (reply, replayed) = oneshot::channel();
        let gone = || Status::unavailable("the group has just ended");
        worker.send(Command::Replay(most, reply)).await.map_err(|_| gone())?;
        replayed.await.map_err(|_| gone())??;
        Ok(Response::new(ReplayParkedResp {}))
    }

    async fn list(&self, request: Request<ListReq>) -> Result<Response<ListResp>, Status> {
        use list_req::{options::ListOption, stream_option::StreamOption};
        let options = required(request.into_inner().options)?;
        let source = match required(options.list_option)? {
            ListOption::ListAllSubscriptions(_) => None,
            ListOption::ListForStream(option) => Some(match required(option.stream_option)? {
                StreamOption::Stream(stream) => Target::of(Some(&stream))?.name(),
                StreamOption::All(_) => "$all".to_owned(),
            }),
        };
        let mut subscriptions = Vec::new();
        for group in config::groups(&*self.store).await? {
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
        let names: Vec<_> = self.running().keys().cloned().collect();
        for name in names {
            self.stop(&name, dropped(&name, "was restarted.")).await;
        }
        Ok(Response::new(Empty {}))
    }
}

/// No consumer is given more events than this before it answers.
const MOST_SLOTS: usize = 10_000;

/// Tells the group when the consumer has gone.
struct Guard {
    worker: mpsc::Sender<Command>,
    number: u64,
    /// The task that takes its answers, without which the call does not end.
    answers: AbortHandle,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.answers.abort();
        let (worker, number) = (self.worker.clone(), self.number);
        // Outside a runtime, everything has ended.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { worker.send(Command::Disconnect(number)).await });
        }
    }
}

/// Hands what a consumer answers to its group.
async fn answered(mut requests: Streaming<ReadReq>, worker: mpsc::Sender<Command>, number: u64) {
    use read_req::Content;
    while let Ok(Some(request)) = requests.message().await {
        let ids = |ids: Vec<_>| ids.into_iter().filter_map(|id| read_id(Some(id)).ok()).collect();
        let command = match request.content {
            Some(Content::Ack(ack)) => Command::Ack(number, ids(ack.ids)),
            Some(Content::Nack(nack)) => {
                let action = match nack.action {
                    1 => Action::Park,
                    3 => Action::Skip,
                    4 => Action::Stop,
                    _ => Action::Retry,
                };
                Command::Nack(number, ids(nack.ids), action, nack.reason)
            }
            _ => continue,
        };
        if worker.send(command).await.is_err() {
            return;
        }
    }
    // Whoever can answer nothing any more is gone.
    let _ = worker.send(Command::Disconnect(number)).await;
}
