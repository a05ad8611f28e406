//! The bugs of the broken stores: each with the rule that it breaks, and the case that must notice
//! it.

/// One broken store, and the case that must fail on it.
pub(crate) struct Broken {
    pub(crate) bug: Bug,
    pub(crate) rule: u8,
    pub(crate) case: &'static str,
    /// True if the bug keeps something from ever happening, so that the case can only fail by a
    /// timeout.
    pub(crate) by_waiting: bool,
}

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident [$rule:literal] $case:literal $($waiting:ident)?;)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Bug { $($(#[$doc])* $bug),+ }

        pub(crate) const BUGS: &[Broken] = &[$(Broken {
            bug: Bug::$bug,
            rule: $rule,
            case: $case,
            by_waiting: bugs!(@ $($waiting)?),
        }),+];
    };
    (@ waiting) => { true };
    (@) => { false };
}

bugs! {
    /// An append is written in two halves.
    WritesInHalves [1] "concurrency::readers_see_whole_appends";
    /// The events of an append are written last first.
    ReordersABatch [1] "append::writes_events_in_the_order_given";
    /// A conflict is found only after the events were written.
    WritesBeforeItChecks [1] "expect::a_refused_append_writes_nothing";
    /// Expected versions are not checked at all.
    ChecksNothing [2] "expect::exact_holds_only_at_that_version";
    /// The expected version is checked first, and the events are written later, without a lock.
    ChecksTooEarly [2] "concurrency::one_of_many_succeeds";
    /// All concurrent optimistic updates are answered as written, but only one of them is.
    LosesUpdates [2] "concurrency::optimistic_counters_lose_no_update";
    /// A lost race gives an internal error in place of a conflict.
    ConflictIsInternal [2] "concurrency::one_of_many_succeeds";
    /// A conflict error carries no versions.
    ConflictSaysNothing [2] "expect::no_stream_holds_only_without_one";
    /// A conflict carries only the last digit of the actual version.
    ConflictSaysOneDigit [2] "expect::says_versions_of_many_digits";
    /// `Exact(0)` is compared with the stream's version, and so never holds.
    ExactZeroNeverHolds [2] "expect::exact_zero_means_no_stream";
    /// Concurrent appends to different streams fail, since one lock covers the whole store.
    LocksTheWholeStore [2] "concurrency::different_streams_never_conflict";
    /// An append with `Any` expects the version that it has just read, and so can conflict.
    AnyConflicts [3] "concurrency::any_never_conflicts";
    /// An append with `Any` that loses a race is answered as written, but is not.
    AnyLosesSilently [3] "concurrency::any_never_conflicts";
    /// `StreamExists` is treated as `Any`.
    StreamExistsCreates [3] "expect::stream_exists_holds_only_with_one";
    /// The answer has the position of the append's first event, not of the last.
    AnswersTheFirstPosition [4] "append::answers_what_readers_see";
    /// The versions in the answer count from 0.
    AnswersVersionsFromZero [4] "append::answers_versions";
    /// A retry is not recognised, and gives a conflict.
    RecognisesNoRetry [5] "retry::an_exact_append_is_recognised";
    /// A retry is recognised by the id of its first event alone.
    RecognisesByTheFirstId [5] "retry::a_retry_of_a_part_is_a_conflict";
    /// Event ids are treated as unique in the whole store.
    IdsAreKeys [5] "retry::the_same_ids_in_another_stream_are_new";
    /// The answer to a retry does not say `replayed`.
    RetriesLookNew [5] "retry::a_no_stream_append_is_recognised";
    /// A retry under `Any` or `StreamExists` writes again.
    AnyRetriesWriteAgain [5] "retry::an_any_append_is_recognised_at_once";
    /// The store declares guaranteed recognition, but recognises only the last append of a stream.
    ForgetsOlderAppends [5] "retry::an_any_append_is_recognised_later";
    /// The error after a lost answer does not say that the outcome is unknown.
    DeniesTheUnknown [6] "faults::a_lost_answer_is_said_to_be_unknown";
    /// After a lost answer the store sends the append again with new event ids.
    AsksAgainWithNewIds [6] "faults::an_append_with_a_lost_answer_can_be_retried";
    /// An empty append panics.
    PanicsOnNothing [7] "append::refuses_an_empty_append";
    /// An empty append is answered as written.
    AnswersNothing [7] "append::refuses_an_empty_append";
    /// The store declares a limit on the size of an event, but does not enforce it.
    TakesTooLargeEvents [7] "append::refuses_an_event_over_the_limit";
    /// The store declares a larger limit than it can keep.
    DeclaresTooMuch [7] "append::accepts_an_event_at_the_limit";
    /// The store declares a limit on the streams of an append, but does not enforce it.
    TakesTooManyStreams [7] "multi-stream::refuses_too_many_streams";
    /// The store declares that it takes more streams than it does.
    DeclaresTooManyStreams [7] "multi-stream::as_many_streams_as_declared_are_written";
    /// Streams whose ids begin with `$` can be written to.
    WritesSystemStreams [7] "append::refuses_names_of_the_backend";
    /// An append that is dropped in the middle has written some of its events.
    DroppedAppendsAreHalf [8] "concurrency::a_dropped_append_is_whole_or_not_at_all";
    /// An append that is dropped in the middle keeps its lock.
    DroppedAppendsBlock [8] "concurrency::aborted_writers_leave_the_store_working" waiting;
    /// A multi-stream append writes its streams one after the other.
    MultiIsALoop [9] "multi-stream::one_conflict_writes_nothing";
    /// Multi-stream append is not declared, but works.
    MultiIsUndeclared [9] "multi-stream::writes_all_streams";
    /// JSON is parsed and serialized again.
    RewritesJson [10] "payload::json_is_kept_byte_for_byte";
    /// Binary data that is valid JSON becomes JSON.
    GuessesTheKind [10] "payload::binary_is_kept_byte_for_byte";
    /// Metadata that is not JSON is dropped.
    DropsBinaryMetadata [10] "payload::metadata_is_kept_byte_for_byte";
    /// Stream ids are changed to lower case.
    FoldsCase [10] "payload::stream_ids_are_kept_apart";
    /// Stream ids are trimmed.
    TrimsIds [10] "payload::stream_ids_are_kept_apart";
    /// Times are kept in milliseconds.
    KeepsMilliseconds [10] "payload::the_time_is_now_in_microseconds";
    /// A read ends after its first page.
    CutsLongStreams [11] "read::a_long_stream_is_not_cut";
    /// A read begins after the version asked for, not at it.
    ReadsFromAfter [11] "read::a_stream_from_every_version";
    /// A read of a missing stream is an error.
    MissingStreamsFail [11] "read::a_stream_that_does_not_exist_is_empty";
    /// A reader on another handle misses the last event.
    ReadsStaleData [11] "read::every_handle_sees_what_was_answered";
    /// The prefix of a filter is matched as an SQL pattern with `_` and `%`.
    PrefixIsAPattern [12] "filter::by_prefix";
    /// The prefix of a filter is compared without regard to case.
    PrefixIgnoresCase [12] "filter::by_prefix";
    /// The category of a filter is matched as a prefix.
    CategoryIsAPrefix [12] "filter::by_category";
    /// The limit is applied before the filter.
    LimitsBeforeItFilters [12] "filter::limits_count_what_matches";
    /// A read of all begins at the position, not after it.
    ReadsAllFromAt [12] "read::all_from_every_position";
    /// Neighbouring positions are swapped, as by two clocks.
    SwapsPositions [13] "read::position_order_is_version_order";
    /// Events that are appended after a deletion get the positions of the removed ones.
    ReusesPositions [13] "manage::positions_are_never_used_again";
    /// An open read holds a lock that appends need.
    OpenReadsBlock [14] "read::an_open_read_blocks_no_append" waiting;
    /// A read ends at a corrupt event as if the stream ended there.
    CorruptIsTheEnd [14] "faults::a_corrupt_event_ends_a_read_as_an_error";
    /// A read leaves corrupt events out.
    CorruptIsSkipped [14] "faults::a_corrupt_event_ends_a_read_of_all_as_an_error";
    /// Positions are taken before the commit. A subscriber that has passed a position never gets an
    /// event that is committed there later.
    SkipsLateCommits [15] "concurrency::a_live_reader_misses_nothing";
    /// Events between the end of the history and the live part of a subscription are lost.
    GapBeforeLive [15] "concurrency::a_live_reader_misses_nothing" waiting;
    /// A subscription begins at its checkpoint, not after it.
    ResumesAt [15] "subscribe::all_resumes_exactly_after_every_position";
    /// A subscription leaves out the first event after its checkpoint.
    ResumesTooLate [15] "subscribe::a_stream_resumes_exactly_after_every_position";
    /// A subscription from a time leaves out the event that was recorded at just that time.
    BeginsAfterTheTime [15] "time::all_begins_at_a_time";
    /// A subscription from a time begins with the oldest event.
    TakesATimeForTheBeginning [15] "time::a_stream_begins_at_a_time";
    /// A subscription from a time begins after the last event that was recorded earlier, as if no two
    /// clocks disagreed.
    TrustsClocks [15] "time::clocks_that_disagree_hide_nothing";
    /// A live event comes twice.
    DeliversTwice [15] "live::a_revived_stream_goes_on";
    /// A subscription from the end looks for the end only when it is first polled.
    EndIsLazy [15] "subscribe::the_end_means_what_comes" waiting;
    /// A subscription never says that it has caught up.
    NeverCaughtUp [16] "subscribe::says_once_that_it_has_caught_up" waiting;
    /// A subscription says that it has caught up before it has.
    CaughtUpTooEarly [16] "subscribe::says_once_that_it_has_caught_up";
    /// A subscription gives no checkpoints for events that its filter leaves out.
    NoCheckpoints [16] "subscribe::live_checkpoints_cover_what_the_filter_leaves_out" waiting;
    /// A live subscription tells how far it looked only once in a thousand positions.
    CheckpointsAreRare [16] "subscribe::a_live_checkpoint_covers_one_left_out_event" waiting;
    /// A checkpoint is ahead of the events that were delivered.
    CheckpointsAreAhead [16] "subscribe::every_message_is_a_checkpoint";
    /// A live subscription looks for new events once an hour.
    PollsOnceAnHour [17] "live::a_waiting_subscriber_is_woken" waiting;
    /// An append through one handle does not wake the subscribers of other handles.
    WakesOnlyItself [17] "live::another_handle_wakes_a_subscriber" waiting;
    /// An append wakes only one of several waiting subscribers.
    WakesOnlyOne [17] "live::every_waiting_subscriber_is_woken" waiting;
    /// A waiting subscriber holds a lock, without which the others are not woken.
    WaitsInTurn [17] "live::an_unpolled_subscriber_holds_up_no_other" waiting;
    /// A subscription drops events when its buffer is full.
    DropsForTheSlow [18] "live::a_slow_consumer_misses_nothing";
    /// A lost connection ends the subscription.
    EndsWithTheConnection [19] "faults::subscriptions_survive_cut_connections";
    /// After a lost connection a subscription resumes at the end.
    ReconnectsAtTheEnd [19] "faults::subscriptions_survive_cut_connections" waiting;
    /// After a lost connection a subscription starts from the beginning again.
    ReconnectsAtTheBeginning [19] "faults::subscriptions_survive_a_restart";
    /// A cancelled `next` loses an event.
    CancellingLosesAnEvent [20] "live::a_cancelled_wait_loses_nothing" waiting;
    /// A truncation removes one event too many.
    TruncatesTooMuch [21] "manage::truncated_events_are_gone";
    /// Truncated events are hidden from reads of their stream only.
    TruncationHides [21] "manage::removed_events_are_gone_from_all";
    /// A deleted stream begins at 1 again.
    NumberingRestarts [21] "manage::a_revived_stream_continues_its_numbering";
    /// A stream does not say at which version it was deleted.
    ForgetsDeletions [21] "manage::a_stream_says_where_it_was_deleted";
    /// A tombstone is only a deletion: the stream can be written to again.
    TombstonesRevive [21] "manage::a_tombstoned_stream_is_closed";
    /// A deletion does not check the expected version.
    DeletesUnchecked [21] "manage::deletion_checks_the_version";
    /// The snapshot of a deleted stream stays.
    SnapshotsOutliveStreams [22] "manage::a_deleted_stream_has_no_snapshot";
    /// A snapshot replaces one of a later version.
    KeepsOlderSnapshots [22] "snapshot::the_latest_snapshot_is_kept";
    /// A snapshot is stored with a later version than its own.
    SnapshotsSayTooMuch [22] "snapshot::a_snapshot_is_kept_byte_for_byte";
    /// Saving an older checkpoint moves it back.
    CheckpointsMoveBack [22] "checkpoint::a_checkpoint_never_moves_back";
    /// Resetting a checkpoint does nothing.
    CheckpointsStick [22] "checkpoint::a_checkpoint_moves_back_when_asked_to";
    /// A swap of a checkpoint compares nothing.
    CheckpointSwapsCheckNothing [22] "checkpoint::a_checkpoint_is_swapped_from_where_it_is";
    /// A swap of a checkpoint compares first, and saves later.
    CheckpointSwapsCheckTooEarly [22] "checkpoint::one_of_many_swaps_moves_a_checkpoint";
    /// Handles that open an empty database at the same time each create it anew.
    CreatesTwice [23] "lifecycle::many_open_an_empty_database_at_once";
    /// A database of a newer version of annals is opened.
    OpensNewerSchemas [23] "lifecycle::a_newer_schema_is_refused";
    /// All namespaces share one store.
    SharesNamespaces [23] "lifecycle::namespaces_are_kept_apart";
    /// A lease record replaces any other, whatever the revisions.
    SwapsCheckNothing [24] "lease::a_record_replaces_only_the_one_before";
    /// The revision is checked first, and the record is written later, without a lock.
    SwapsCheckTooEarly [24] "lease::one_of_many_swaps_succeeds";
    /// A swap that loses is answered as written, but is not.
    SwapsLoseSilently [24] "lease::one_of_many_swaps_succeeds";
    /// A swap to the record that is already stored is answered as written.
    SwapsRepeat [24] "lease::a_record_replaces_only_the_one_before";
    /// Releasing a lease deletes its record, so that tokens begin at 1 again.
    LeasesAreForgotten [24] "lease::a_released_lease_is_taken_at_once";
    /// A released lease looks held until its time to live has passed.
    LeasesAreNeverGivenUp [24] "lease::a_released_lease_is_taken_at_once" waiting;
    /// All leases share one record.
    LeasesAreOne [24] "lease::leases_are_kept_apart";
    /// Times to live are kept in seconds.
    LeasesKeepSeconds [24] "lease::a_record_is_kept_as_it_is_written";
    /// Each handle has leases of its own.
    LeasesAreOfAHandle [24] "lease::one_candidate_at_a_time_holds_a_lease";
    /// The error of a swap after a lost answer does not say that the outcome is unknown.
    SwapsDenyTheUnknown [24] "lease::the_record_tells_a_lost_answer";
    /// Imported events get the time of the import.
    ImportsNow [25] "transfer::an_import_keeps_the_times";
    /// An import appends its events at the end, also if they are already there.
    ImportsAppend [25] "transfer::an_import_can_be_repeated";
    /// An import takes any event at a version for the imported one.
    ImportsCompareNothing [25] "transfer::an_import_replaces_nothing";
    /// An import that would leave a gap appends its events without one.
    ImportsCloseGaps [25] "transfer::an_import_leaves_no_gap";
    /// A stream that is imported after it was deleted counts as one that was never deleted.
    ImportsForgetDeletions [25] "transfer::a_deletion_is_kept_by_an_import";
    /// An imported stream begins at version 1, whatever version it began at elsewhere.
    ImportsRenumber [25] "transfer::a_stream_may_begin_at_any_version";
    /// An import writes its events stream by stream, not in the order given.
    ImportsSort [25] "transfer::an_import_keeps_the_order_given";
    /// An import drops the events of a tombstoned stream, and succeeds.
    ImportsDropTheClosed [25] "transfer::a_closed_stream_takes_no_import";
    /// An import leaves out events over the size limit, and succeeds.
    ImportsDropTheLarge [25] "transfer::an_import_refuses_what_an_append_refuses";
    /// An import writes its first event before it checks the others.
    ImportsCheckLate [7] "transfer::an_import_refuses_what_an_append_refuses";
    /// An import that was dropped in the middle counts as done.
    ImportsForgetTheDropped [25] "transfer::a_dropped_import_can_be_finished";
    /// An import wakes no subscriber.
    ImportsWakeNobody [17] "transfer::a_subscriber_sees_an_import" waiting;
    /// Only live streams are listed.
    ListsTheLiving [25] "transfer::removed_streams_are_listed";
    /// Each page of the list but the first leaves out one stream.
    ListsSkip [25] "transfer::streams_are_listed_a_page_at_a_time";
    /// Streams are listed in an order without regard to case.
    ListsFoldCase [25] "transfer::streams_are_listed_a_page_at_a_time";
    /// A read of all beyond the end is empty.
    ReadsBeyondTheEnd [12] "resume::reads_beyond_the_end_are_refused";
    /// A backward read of all from beyond the end begins with the last event.
    ReadsBackFromBeyond [12] "resume::backward_reads_beyond_the_end_are_refused";
    /// A read of a category beyond the end is empty.
    FilteredReadsGoBeyond [12] "resume::filtered_reads_beyond_the_end_are_refused";
    /// A subscription beyond the end says that it has caught up there.
    SubscribesBeyondTheEnd [15] "resume::a_checkpoint_of_another_store_is_refused";
    /// A subscription to one stream beyond the end of the store says that it has caught up there.
    StreamsSubscribeBeyond [15] "resume::a_stream_subscription_beyond_the_end_is_refused";
    /// A subscription after a version that the stream never had begins at its end.
    VersionsBeyondTheEnd [15] "resume::a_version_beyond_the_end_is_refused";
    /// The error about a place beyond the end has no numbers.
    RefusesWithoutNumbers [12] "resume::reads_beyond_the_end_are_refused";
    /// The error about a place beyond the end has the kind of another mistake.
    RefusesAsInvalid [12] "resume::subscriptions_beyond_the_end_are_refused";
    /// The last position counts as beyond the end.
    RefusesTheLastPlace [12] "resume::the_last_position_is_a_place";
    /// A handle knows only the positions that it has seen itself.
    KnowsOnlyItsOwnEnd [12] "resume::other_handles_know_the_end";
    /// A place that was refused once is refused for ever.
    NeverLooksAgain [12] "resume::a_place_is_refused_until_it_is_given";
    /// A subscription says that it has caught up beyond the end.
    TellsMoreThanItGave [16] "resume::a_caught_up_position_is_a_place";
    /// A subscription says that it has caught up before the position that it began after.
    TellsLessThanItsStart [16] "resume::a_caught_up_position_is_a_place";
    /// The end is the position of the last event that is left.
    ForgetsRemovedPlaces [15] "removed::the_positions_of_a_deleted_stream_are_places";
    /// A read after the position of a removed event leaves out the event behind it.
    SkipsAfterRemoved [12] "removed::the_positions_of_truncated_events_are_places";
    /// A subscription to a stream after the position of a removed event begins at the beginning.
    RemovedPlacesAreTheStart [15] "removed::the_positions_of_a_closed_stream_are_places";
    /// A read from between two positions is empty.
    BetweenIsNowhere [12] "removed::places_between_positions_lie_between";
    /// The versions of removed events count as beyond the end of their stream.
    ForgetsRemovedVersions [15] "removed::a_deleted_stream_keeps_its_versions";
    /// A snapshot of a deleted stream is kept.
    KeepsSnapshotsOfTheDeleted [22] "states::a_snapshot_of_a_deleted_stream_is_not_kept";
    /// A snapshot of a closed stream is kept.
    KeepsSnapshotsOfTheClosed [22] "states::a_snapshot_of_a_closed_stream_is_not_kept";
    /// Old snapshots are refused only as long as the stream is deleted.
    OldSnapshotsRevive [22] "states::an_old_snapshot_of_a_revived_stream_is_not_kept";
    /// Deleting a snapshot also forgets the deletion of the stream.
    DeletedSnapshotsForgive [22] "states::a_deleted_snapshot_lets_no_older_one_in";
    /// Whether the stream was deleted is asked first, and the snapshot is saved later, without a
    /// lock.
    SavesAskTooEarly [22] "states::saves_beside_a_deletion_leave_no_snapshot";
    /// A truncation removes the snapshot.
    TruncationsForgetSnapshots [22] "states::a_snapshot_outlives_a_truncation";
    /// A deletion removes the snapshot before it checks the version.
    RefusedDeletionsForget [22] "states::a_refused_removal_keeps_the_snapshot";
    /// The stream ids of snapshots are cut.
    CutsSnapshotNames [22] "size::the_largest_stream_id_has_a_snapshot";
    /// Event types are cut.
    CutsTypes [10] "size::the_largest_event_type_can_be_used";
    /// The prefix of a filter is cut.
    CutsPrefixes [12] "size::the_largest_names_can_be_filtered_by";
    /// The ids of subscribers are cut.
    CutsSubscribers [22] "size::the_largest_subscriber_id_has_a_checkpoint";
    /// The names of leases are cut.
    CutsLeases [24] "size::the_largest_lease_name_has_a_lease";
    /// A backward read from beyond version 1,000 begins one version too early.
    LosesTheThousandth [11] "size::a_stream_of_many_pages_is_read_both_ways";
    /// The prefix of a filter does not count beside its category.
    CategoryOrPrefix [12] "filter::a_filter_that_matches_nothing_reaches_the_end";
    /// A stream is read in the order of its times.
    SortsByTime [25] "transfer::times_may_go_back";
    /// A truncation writes back the version that it read before it had the lock: what was appended
    /// meanwhile is written over.
    TruncatesToStaleVersion [21] "races::truncations_beside_appends_lose_nothing";
    /// A deletion writes back the version that it read before it had the lock.
    DeletesToStaleVersion [21] "races::deletions_beside_appends_lose_no_version";
    /// A deletion checks first whether the stream exists, and deletes later, without a lock.
    DeletionsCheckTooEarly [2] "races::one_of_many_deletions_succeeds";
    /// A read of a stream counts from the first event to its next page.
    PagesByOffset [14] "races::an_open_read_goes_on_beside_a_truncation";
    /// A truncation removes the first 500 events only.
    TruncatesOneBatch [21] "large::a_truncation_of_thousands_leaves_just_the_rest";
    /// A deletion removes only the first 500 events from reads of all.
    DeletesOneBatchOfAll [21] "large::a_deletion_leaves_nothing_of_thousands";
    /// The ids of all but the first 1,000 removed events still prove a retry.
    RemovedIdsAreProof [5] "large::the_ids_of_thousands_of_deleted_events_prove_no_retry";
    /// A truncation before a version that does not exist yet hides the events that come there.
    TruncationsRemember [21] "large::a_truncation_beyond_the_end_leaves_nothing_of_thousands";
    /// The list of streams ends after a thousand.
    ListsAThousand [25] "large::thousands_of_streams_are_listed";
    /// A filtered read ends after 4,096 events that do not match.
    EndsAtAStretch [12] "stretch::reads_cross_thousands_of_misses";
    /// A filtered backward read ends after 4,096 events that do not match.
    EndsBackwardsAtAStretch [12] "stretch::reads_cross_thousands_of_misses";
    /// A filtered subscription stalls after 4,096 events that do not match.
    StallsAtAStretch [15] "stretch::subscriptions_cross_thousands_of_misses" waiting;
    /// A filtered subscription says that it has caught up after 4,096 events that do not match.
    CatchesUpAtAStretch [16] "stretch::subscriptions_cross_thousands_of_misses";
    /// A filter by event types takes a hundred of them into account.
    FiltersByAHundredTypes [12] "stretch::hundreds_of_event_types_are_filtered_by";
    /// A subscription says that it has caught up, and then gives the last event of the history.
    CaughtUpBeforeTheLast [16] "subscribe::says_once_that_it_has_caught_up";
    /// A subscription to a truncated stream counts its start from the first event that is left.
    ResumesByCounting [15] "places::every_version_of_removed_streams";
    /// A read of a truncated stream counts its start from the first event that is left.
    CountsVersions [11] "places::every_version_of_removed_streams";
    /// An append whose expectation does not hold is answered as done if its ids stand in another
    /// stream.
    IdsExcuseConflicts [5] "ids::ids_of_another_stream_excuse_no_conflict";
    /// A part of a multi-stream append whose ids another stream has is answered as done.
    IdsAreKeysOfMultiAppends [9] "ids::one_multi_stream_append_gives_two_streams_the_same_ids";
    /// Of several events with one id in an append, only the first is written.
    KeepsAnIdOnce [10] "ids::one_append_may_hold_an_id_twice";
    /// A nil event id is replaced.
    TakesNilIds [7] "append::refuses_a_nil_event_id";
    /// An append with `Any` is forgotten after a thousand later events.
    ForgetsAfterAThousand [5] "retry::an_any_retry_is_recognised_after_thousands_of_appends";
    /// An append with `Exact` is forgotten after a thousand later events.
    ForgetsExactAfterAThousand [5] "retry::a_retry_is_recognised_after_thousands_of_events";
    /// The retry of a multi-stream append with `Any` writes again.
    AnyMultiRetriesWriteAgain [5] "multi-stream::a_retry_under_any_is_recognised";
    /// Of several conflicts the last is reported.
    ReportsTheLastConflict [9] "multi-stream::the_first_conflict_is_reported";
    /// A part that is a retry is reported as the conflict, and not the part that was refused.
    RetriesHideConflicts [9] "multi-stream::a_conflict_behind_a_retry_is_reported";
    /// If a part of a multi-stream append was written before, the others are written.
    HalfRetriesWriteTheRest [9] "multi-stream::a_retry_beside_a_new_append_is_a_conflict";
    /// A multi-stream append writes its streams in the order of their names.
    MultiSortsItsStreams [9] "multi-stream::positions_have_the_order_of_the_appends";
    /// A multi-stream append that is dropped in the middle has written some of its streams.
    DroppedMultiAppendsAreHalf [8] "multi-stream::a_dropped_append_is_whole_or_not_at_all";
    /// A multi-stream append wakes no subscriber.
    MultiAppendsWakeNobody [17] "live::a_multi_stream_append_wakes_the_subscribers_of_each_stream" waiting;
    /// A live subscription with a filter is not woken.
    SleepsWithAFilter [17] "live::a_waiting_subscriber_with_a_filter_is_woken" waiting;
    /// Positions of removed events are given again after the last handle was dropped.
    ForgetsPositionsWhenClosed [13] "reopen::positions_of_a_deleted_end_are_not_given_again";
    /// That a stream was deleted is forgotten when the last handle is dropped.
    ForgetsDeletionsWhenClosed [22] "reopen::a_deletion_is_remembered_by_snapshots";
    /// That a stream was tombstoned is forgotten when the last handle is dropped.
    ClosedStreamsReopen [21] "reopen::a_closed_stream_stays_closed";
    /// Retries are not recognised after the last handle was dropped.
    ForgetsRetriesWhenClosed [5] "reopen::retries_are_recognised";
    /// A truncation makes a deleted stream live.
    TruncationsRevive [21] "pairs::each_call_after_a_deletion";
    /// A tombstone forgets the version.
    TombstonesForgetTheVersion [21] "manage::a_tombstone_keeps_the_version";
    /// A tombstoned stream keeps its snapshot.
    TombstonesKeepSnapshots [22] "manage::a_tombstoned_stream_has_no_snapshot";
    /// To save a snapshot of a removed stream is an error.
    RefusesSnapshotsOfTheRemoved [22] "manage::snapshots_of_removed_streams_are_not_refused";
    /// Of a prefix as many bytes are compared as it has characters.
    PrefixComparesCharacters [12] "prefix::a_prefix_ends_between_bytes_that_characters_share";
    /// The range of a prefix ends before the greatest characters.
    PrefixEndsTooEarly [12] "prefix::the_greatest_characters_end_a_prefix";
    /// Event types are compared without regard to case.
    TypesIgnoreCase [12] "prefix::event_types_are_compared_by_bytes";
    /// Limits are cut to 32 bits.
    CutsLimits [11] "ends::reads_of_a_stream_at_the_ends";
    /// Expected versions are cut to 32 bits.
    CutsExpectedVersions [2] "ends::expected_versions_at_the_ends";
    /// A truncation before a version above `i64::MAX` does nothing, as if it were negative.
    TruncatesSigned [21] "ends::truncations_at_the_ends";
    /// Of a checkpoint above `i64::MAX` another number is kept.
    CheckpointsAreSigned [22] "ends::checkpoints_at_the_ends";
    /// Of a snapshot of a version above `i64::MAX` another version is kept.
    SnapshotsAreSigned [22] "ends::snapshots_at_the_ends";
    /// An error of an append names neither backend nor operation nor stream.
    ErrorsNameNothing [7] "append::says_where_an_error_came_from";

    // Races: see `racing.rs`.
    /// An append is answered before readers see it.
    ShowsTooLate [4] "history::appends_of_each_expectation_are_linearizable";
    /// A handle sees its own appends at once, and those of others a little later.
    HandlesLagBehind [11] "history::appends_of_each_expectation_are_linearizable";
    /// Of two concurrent appends that expect the same version, both are answered as written.
    AnswersBothOfARace [2] "history::appends_of_each_expectation_are_linearizable";
    /// A conflict says the version that the stream had before the race was lost.
    ConflictSaysThePast [2] "history::appends_of_each_expectation_are_linearizable";
    /// Whether an append is a retry is asked first, and it is written later, without a lock.
    RetriesRaceThemselves [5] "history::retries_beside_other_appends_write_once";
    /// An append that is dropped after it was written is written again.
    DroppedAppendsWriteTwice [8] "history::dropped_appends_are_whole_or_not_at_all";
    /// Readers see the first stream of a multi-stream append earlier than the others.
    MultiIsSeenByHalves [9] "history::appends_to_several_streams_are_one";
    /// A deletion checks the version first, and removes whatever is there later.
    DeletesCheckTooEarly [21] "history::removals_beside_appends_are_linearizable";
    /// The versions that a stream is said to have were read at two moments.
    InfosAreTorn [21] "history::removals_beside_appends_are_linearizable";
    /// Readers of all see some events only after later ones.
    ShowsOutOfOrder [12] "history::readers_beside_writers_see_one_order";
    /// A reader of all does not see what a reader on another handle has seen before.
    ReadersGoBack [12] "history::readers_beside_writers_see_one_order";
    /// A subscription skips the events of appends that were not answered when it came by.
    SkipsInFlight [15] "history::everything_together_is_linearizable";
}
