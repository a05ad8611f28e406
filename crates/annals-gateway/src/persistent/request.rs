//! Parses the requests of the service: which group a client means, and how a new group is to be.

use annals_core::{ErrorKind, EventStoreExt, ReadAll, Store, TryStreamExt};
use tonic::Status;

use super::{
    catalog::Group,
    info::place_text,
    name::GroupName,
    settings::{GroupFilter, Settings},
};
use crate::{
    proto::{
        persistent::{
            GroupOptions, delete_req, get_info_req, group_options::StreamOption, list_req,
            read_req, replay_parked_req,
        },
        shared::all_options::FilterOption,
    },
    read::ReadFrom,
    status::status,
    wire_stream::WireStream,
};

pub(crate) fn required<T>(options: Option<T>) -> Result<T, Status> {
    options.ok_or_else(|| Status::invalid_argument("the options are missing"))
}

/// The group that the options of a call name. In the protocol, each call has its own type for the
/// choice between a stream and `$all`.
macro_rules! group_named_by {
    ($($call:ident),+) => {$(
        impl TryFrom<$call::Options> for GroupName {
            type Error = Status;

            fn try_from(options: $call::Options) -> Result<Self, Status> {
                match required(options.stream_option)? {
                    $call::options::StreamOption::StreamIdentifier(stream) => {
                        Self::on_stream(Some(&stream), options.group_name)
                    }
                    $call::options::StreamOption::All(_) => Self::on_all(options.group_name),
                }
            }
        }
    )+};
}

group_named_by!(delete_req, get_info_req, read_req, replay_parked_req);

/// The source whose groups a client wants to list. `None` for all groups.
pub(crate) fn listed_source(options: list_req::Options) -> Result<Option<String>, Status> {
    use list_req::{options::ListOption, stream_option::StreamOption};
    Ok(match required(options.list_option)? {
        ListOption::ListAllSubscriptions(_) => None,
        ListOption::ListForStream(option) => Some(match required(option.stream_option)? {
            StreamOption::Stream(stream) => WireStream::parse(Some(&stream))?.name(),
            StreamOption::All(_) => WireStream::All.name(),
        }),
    })
}

/// The group that a client wants to create, or to which it wants to update a group.
#[allow(deprecated, reason = "old clients send the deprecated fields")]
pub(crate) async fn requested_group(
    store: &dyn Store,
    options: Option<GroupOptions>,
) -> Result<Group, Status> {
    let GroupOptions { stream_option, stream_identifier, group_name, settings } =
        required(options)?;
    let settings = required(settings)?;
    let (name, from, filter) = match stream_option {
        Some(StreamOption::All(all)) => {
            let filter = match all.filter_option {
                Some(FilterOption::Filter(filter)) => Some(GroupFilter::new(filter)?),
                _ => None,
            };
            let from = ReadFrom::in_all(all.all_option).ok_or_else(no_place)?;
            (GroupName::on_all(group_name)?, from, filter)
        }
        Some(StreamOption::Stream(stream)) => {
            let name = GroupName::on_stream(stream.stream_identifier.as_ref(), group_name)?;
            (name, ReadFrom::in_stream(stream.revision_option).ok_or_else(no_place)?, None)
        }
        None => {
            let name = GroupName::on_stream(stream_identifier.as_ref(), group_name)?;
            (name, old_start(settings.revision), None)
        }
    };
    let settings = Settings::new(settings, &name)?;
    let (first, start_from) = (first_place(store, from, &name).await?, start_text(from, &name));
    Ok(Group { name, first, start_from, filter, settings })
}

fn no_place() -> Status {
    Status::invalid_argument("the place where the group begins is missing")
}

/// The first revision or position that a new group gets.
async fn first_place(store: &dyn Store, from: ReadFrom, name: &GroupName) -> Result<u64, Status> {
    match (from, name.stream()?) {
        (ReadFrom::Start, _) => Ok(0),
        (ReadFrom::At(revision), WireStream::Stream(_)) => Ok(revision),
        (ReadFrom::At(position), _) => {
            let after = ReadAll::default().after(position).with_limit(1);
            match store.read_all(after).try_next().await {
                Err(error) if error.kind() == ErrorKind::BeyondEnd => Err(name.failed(
                    "Invalid Start From position: commit position must be less than or equal to \
                     the last commit position in the transaction file.",
                )),
                answer => answer.map(|_| position).map_err(|e| status(&e)),
            }
        }
        (ReadFrom::End, WireStream::Stream(stream)) => {
            let info = store.stream_info(&stream).await.map_err(|e| status(&e))?;
            Ok(info.version.get())
        }
        (ReadFrom::End, _) => Ok(store.last_position().await.map_err(|e| status(&e))?.get() + 1),
    }
}

/// Where a group begins, in the format of old clients.
fn old_start(revision: u64) -> ReadFrom {
    match revision {
        0 => ReadFrom::Start,
        u64::MAX => ReadFrom::End,
        revision => ReadFrom::At(revision),
    }
}

/// Where a group begins, as `GetInfo` reports it.
fn start_text(from: ReadFrom, name: &GroupName) -> String {
    let number = match from {
        ReadFrom::Start => 0,
        ReadFrom::End => -1,
        ReadFrom::At(place) => i64::try_from(place).unwrap_or(i64::MAX),
    };
    place_text(name, number)
}
