//! The service `Projections`, as far as applications call it when they start: the streams of the
//! system projections are always there, so these projections are running, whatever a client asks for.

use futures::stream;
use tonic::{Request, Response, Status};

use crate::proto::{
    projections::{
        DisableReq, DisableResp, EnableReq, EnableResp, ResetReq, ResetResp, StatisticsReq,
        StatisticsResp, projections_server, statistics_req::options::Mode,
        statistics_resp::Details,
    },
    shared::Empty,
};

/// The projections that EventStoreDB has from the start.
const SYSTEM: [&str; 5] =
    ["$by_category", "$by_correlation_id", "$by_event_type", "$stream_by_category", "$streams"];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Projections;

type Answers = stream::Iter<std::vec::IntoIter<Result<StatisticsResp, Status>>>;

#[tonic::async_trait]
impl projections_server::Projections for Projections {
    type StatisticsStream = Answers;

    async fn statistics(
        &self,
        request: Request<StatisticsReq>,
    ) -> Result<Response<Answers>, Status> {
        let mode = request.into_inner().options.and_then(|options| options.mode);
        let names = match mode {
            Some(Mode::Name(name)) => vec![known(&name)?],
            Some(Mode::All(_) | Mode::Continuous(_)) => SYSTEM.to_vec(),
            Some(Mode::Transient(_) | Mode::OneTime(_)) => Vec::new(),
            None => return Err(Status::invalid_argument("the projections to tell of are missing")),
        };
        let answers: Vec<_> = names.into_iter().map(|name| Ok(running(name))).collect();
        Ok(Response::new(stream::iter(answers)))
    }

    async fn enable(&self, request: Request<EnableReq>) -> Result<Response<EnableResp>, Status> {
        let name = request.into_inner().options.map(|options| options.name);
        known(&name.unwrap_or_default())?;
        Ok(Response::new(EnableResp {}))
    }

    async fn disable(&self, request: Request<DisableReq>) -> Result<Response<DisableResp>, Status> {
        let name = request.into_inner().options.map(|options| options.name);
        let name = known(&name.unwrap_or_default())?;
        Err(Status::unimplemented(format!("the projection {name} cannot be disabled")))
    }

    async fn reset(&self, request: Request<ResetReq>) -> Result<Response<ResetResp>, Status> {
        let name = request.into_inner().options.map(|options| options.name);
        known(&name.unwrap_or_default())?;
        Ok(Response::new(ResetResp {}))
    }

    async fn restart_subsystem(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }
}

fn known(name: &str) -> Result<&'static str, Status> {
    let found = SYSTEM.iter().find(|system| **system == name);
    found.copied().ok_or_else(|| Status::not_found(format!("there is no projection {name:?}")))
}

fn running(name: &str) -> StatisticsResp {
    let details = Details {
        name: name.to_owned(),
        effective_name: name.to_owned(),
        status: "Running".to_owned(),
        mode: "Continuous".to_owned(),
        progress: 100.0,
        ..Details::default()
    };
    StatisticsResp { details: Some(details) }
}
