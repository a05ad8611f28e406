//! What can be broken, which rule that breaks, and which case must notice.

/// One broken store.
pub(crate) struct Broken {
    pub(crate) bug: Bug,
    pub(crate) rule: u8,
    pub(crate) case: &'static str,
    /// Whether it shows by something that never comes, so that the case can only wait for it.
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
    /// The conflict is found when the events are already there.
    WritesBeforeItChecks [1] "expect::a_refused_append_writes_nothing";
    /// No expectation is checked at all.
    ChecksNothing [2] "expect::exact_holds_only_at_that_version";
    /// The version is checked, and then the events are written.
    ChecksTooEarly [2] "concurrency::one_of_many_succeeds";
    /// Of concurrent optimistic updates all are answered, but some overwrite others.
    LosesUpdates [2] "concurrency::optimistic_counters_lose_no_update";
    /// A lost race comes as an internal error.
    ConflictIsInternal [2] "concurrency::one_of_many_succeeds";
    /// A conflict does not say its versions.
    ConflictSaysNothing [2] "expect::no_stream_holds_only_without_one";
    /// The actual version is taken from the last digit of a text.
    ConflictSaysOneDigit [2] "expect::says_versions_of_many_digits";
    /// `Exact(0)` is looked up as a version, which no stream has.
    ExactZeroNeverHolds [2] "expect::exact_zero_means_no_stream";
    /// Appends to different streams get in each other's way.
    LocksTheWholeStore [2] "concurrency::different_streams_never_conflict";
    /// `Any` is turned into the version just seen.
    AnyConflicts [3] "concurrency::any_never_conflicts";
    /// Where `Any` loses a race, nothing is written, but answered.
    AnyLosesSilently [3] "concurrency::any_never_conflicts";
    /// `StreamExists` is taken for `Any`.
    StreamExistsCreates [3] "expect::stream_exists_holds_only_with_one";
    /// The position answered is that of the first event.
    AnswersTheFirstPosition [4] "append::answers_what_readers_see";
    /// The versions answered count from 0.
    AnswersVersionsFromZero [4] "append::answers_versions";
    /// A retry is a conflict.
    RecognisesNoRetry [5] "retry::an_exact_append_is_recognised";
    /// A retry is recognised by its first id alone.
    RecognisesByTheFirstId [5] "retry::part_of_it_is_a_conflict";
    /// An id is taken for a key of the whole store.
    IdsAreKeys [5] "retry::the_same_ids_in_another_stream_are_new";
    /// A retry is answered as if it had written.
    RetriesLookNew [5] "retry::a_no_stream_append_is_recognised";
    /// A retry under `Any` writes again.
    AnyRetriesWriteAgain [5] "retry::an_any_append_is_recognised_at_once";
    /// Guaranteed is declared, but only the last append is remembered.
    ForgetsOlderAppends [5] "retry::an_any_append_is_recognised_later";
    /// The error of a lost answer says that nothing was written.
    DeniesTheUnknown [6] "faults::a_lost_answer_is_said_to_be_unknown";
    /// A lost answer is asked for again with new ids.
    AsksAgainWithNewIds [6] "faults::a_lost_answer_can_be_asked_for_again";
    /// An empty append panics.
    PanicsOnNothing [7] "append::refuses_an_empty_append";
    /// An empty append is answered.
    AnswersNothing [7] "append::refuses_an_empty_append";
    /// The largest event is declared, but not enforced.
    TakesTooLargeEvents [7] "append::refuses_an_event_over_the_limit";
    /// More is declared than can be taken.
    DeclaresTooMuch [7] "append::accepts_an_event_at_the_limit";
    /// Streams of the backend are written.
    WritesSystemStreams [7] "append::refuses_names_of_the_backend";
    /// A dropped append has written some of its events.
    DroppedAppendsAreHalf [8] "concurrency::a_dropped_append_is_whole_or_not_at_all";
    /// A dropped append keeps its lock.
    DroppedAppendsBlock [8] "concurrency::aborted_writers_leave_the_store_working" waiting;
    /// Streams are written one after the other.
    MultiIsALoop [9] "multi-stream::one_conflict_writes_nothing";
    /// Multi-stream append is not declared, but done.
    MultiIsUndeclared [9] "multi-stream::writes_all_streams";
    /// JSON is parsed and written again.
    RewritesJson [10] "payload::json_is_kept_byte_for_byte";
    /// Binary that looks like JSON becomes JSON.
    GuessesTheKind [10] "payload::binary_is_kept_byte_for_byte";
    /// Metadata that is not JSON is dropped.
    DropsBinaryMetadata [10] "payload::metadata_is_kept_byte_for_byte";
    /// Stream ids lose their case.
    FoldsCase [10] "payload::stream_ids_are_kept_apart";
    /// Stream ids lose their blanks.
    TrimsIds [10] "payload::stream_ids_are_kept_apart";
    /// Times are kept in milliseconds.
    KeepsMilliseconds [10] "payload::the_time_is_now_in_microseconds";
    /// A read ends after a page.
    CutsLongStreams [11] "read::a_long_stream_is_not_cut";
    /// A read begins after the version asked for.
    ReadsFromAfter [11] "read::a_stream_from_every_version";
    /// A missing stream is an error.
    MissingStreamsFail [11] "read::a_stream_that_does_not_exist_is_empty";
    /// A reader on another handle sees what was, a while ago.
    ReadsStaleData [11] "read::every_handle_sees_what_was_answered";
    /// A prefix is a pattern with `_` and `%`.
    PrefixIsAPattern [12] "filter::by_prefix";
    /// A prefix is compared without case.
    PrefixIgnoresCase [12] "filter::by_prefix";
    /// A category is a prefix.
    CategoryIsAPrefix [12] "filter::by_category";
    /// The limit is applied before the filter.
    LimitsBeforeItFilters [12] "filter::limits_count_what_matches";
    /// A read of all begins at the position, not after it.
    ReadsAllFromAt [12] "read::all_from_every_position";
    /// Neighbouring positions are swapped, as by two clocks.
    SwapsPositions [13] "read::position_order_is_version_order";
    /// What comes after removed events takes their positions.
    ReusesPositions [13] "manage::positions_are_never_used_again";
    /// An open read keeps a lock.
    OpenReadsBlock [14] "read::an_open_read_blocks_no_append" waiting;
    /// What cannot be decoded is taken for the end.
    CorruptIsTheEnd [14] "faults::a_corrupt_event_ends_a_read_as_an_error";
    /// What cannot be decoded is left out.
    CorruptIsSkipped [14] "faults::a_corrupt_event_ends_a_read_of_all_as_an_error";
    /// Positions are taken before the commit, and a reader never looks back.
    SkipsLateCommits [15] "concurrency::a_live_reader_misses_nothing";
    /// Between history and live there is a gap.
    GapBeforeLive [15] "concurrency::a_live_reader_misses_nothing";
    /// A subscription begins at its checkpoint, not after it.
    ResumesAt [15] "subscribe::all_resumes_exactly_after_every_position";
    /// A subscription begins one after its checkpoint.
    ResumesTooLate [15] "subscribe::a_stream_resumes_exactly_after_every_position";
    /// A live event comes twice.
    DeliversTwice [15] "live::a_revived_stream_goes_on";
    /// The end is where it is when somebody asks first.
    EndIsLazy [15] "subscribe::the_end_means_what_comes" waiting;
    /// It never says that it has caught up.
    NeverCaughtUp [16] "subscribe::says_once_that_it_has_caught_up" waiting;
    /// It says that it has caught up before it has.
    CaughtUpTooEarly [16] "subscribe::says_once_that_it_has_caught_up";
    /// What is left out gives no checkpoints.
    NoCheckpoints [16] "subscribe::live_checkpoints_cover_what_the_filter_leaves_out" waiting;
    /// Checkpoints are ahead of what was delivered.
    CheckpointsAreAhead [16] "subscribe::every_message_is_a_checkpoint";
    /// A subscriber looks once an hour.
    PollsOnceAnHour [17] "live::a_waiting_subscriber_is_woken" waiting;
    /// Other handles wake nobody.
    WakesOnlyItself [17] "live::another_handle_wakes_a_subscriber" waiting;
    /// Only one of those who wait is woken.
    WakesOnlyOne [17] "live::every_waiting_subscriber_is_woken" waiting;
    /// One that waits keeps the others from waiting until it is polled.
    WaitsInTurn [17] "live::one_that_is_not_polled_holds_up_nobody" waiting;
    /// A full buffer drops events.
    DropsForTheSlow [18] "live::a_slow_consumer_misses_nothing";
    /// A lost connection ends the subscription.
    EndsWithTheConnection [19] "faults::subscriptions_survive_cut_connections";
    /// After a lost connection it goes on at the end.
    ReconnectsAtTheEnd [19] "faults::subscriptions_survive_cut_connections" waiting;
    /// After a lost connection it begins again.
    ReconnectsAtTheBeginning [19] "faults::subscriptions_survive_a_restart";
    /// A cancelled `next` takes an event with it.
    CancellingLosesAnEvent [20] "live::a_cancelled_wait_loses_nothing" waiting;
    /// Truncation removes one too many.
    TruncatesTooMuch [21] "manage::truncated_events_are_gone";
    /// Truncated events are hidden from reads of their stream only.
    TruncationHides [21] "manage::removed_events_are_gone_from_all";
    /// A deleted stream begins at 1 again.
    NumberingRestarts [21] "manage::a_revived_stream_continues_its_numbering";
    /// A tombstone is a deletion.
    TombstonesRevive [21] "manage::a_tombstoned_stream_is_closed";
    /// A deletion does not look at the version.
    DeletesUnchecked [21] "manage::deletion_checks_the_version";
    /// The snapshot of a deleted stream comes back with it.
    SnapshotsOutliveStreams [22] "manage::a_deleted_stream_has_no_snapshot";
    /// The last snapshot saved is kept, not the latest.
    KeepsOlderSnapshots [22] "keep::the_latest_snapshot_is_kept";
    /// A snapshot says a later version than its state.
    SnapshotsSayTooMuch [22] "keep::a_snapshot_is_kept_byte_for_byte";
    /// A checkpoint moves back.
    CheckpointsMoveBack [22] "keep::a_checkpoint_never_moves_back";
    /// A checkpoint never moves back, even when asked to.
    CheckpointsStick [22] "keep::a_checkpoint_moves_back_when_asked_to";
    /// Of those who open an empty database at once, each creates it anew.
    CreatesTwice [23] "lifecycle::many_open_an_empty_database_at_once";
    /// What a newer annals created is opened.
    OpensNewerSchemas [23] "lifecycle::a_newer_schema_is_refused";
    /// All namespaces are one.
    SharesNamespaces [23] "lifecycle::namespaces_are_kept_apart";
    /// A record of a lease replaces any other.
    SwapsCheckNothing [24] "lease::a_record_replaces_only_the_one_before";
    /// The revision is checked, and then the record is written.
    SwapsCheckTooEarly [24] "lease::one_of_many_swaps_is_done";
    /// Where a swap loses, nothing is written, but answered.
    SwapsLoseSilently [24] "lease::one_of_many_swaps_is_done";
    /// A record that is there already counts as written.
    SwapsRepeat [24] "lease::a_record_replaces_only_the_one_before";
    /// What is given up is forgotten, and its tokens begin again.
    LeasesAreForgotten [24] "lease::what_was_given_up_is_taken_at_once";
    /// A lease that was given up looks held until its time is over.
    LeasesAreNeverGivenUp [24] "lease::what_was_given_up_is_taken_at_once" waiting;
    /// All leases are one.
    LeasesAreOne [24] "lease::leases_are_kept_apart";
    /// Times to live are kept in seconds.
    LeasesKeepSeconds [24] "lease::a_record_is_kept_as_it_is_written";
    /// Each handle has leases of its own.
    LeasesAreOfAHandle [24] "lease::one_candidate_at_a_time_holds_it";
    /// The error of a swap whose answer was lost says that nothing was written.
    SwapsDenyTheUnknown [24] "lease::a_lost_answer_is_told_by_the_record";
    /// What is imported gets the time of the import.
    ImportsNow [25] "transfer::an_import_keeps_the_times";
    /// What is imported is appended, whatever stands there.
    ImportsAppend [25] "transfer::an_import_can_be_repeated";
    /// What stands at a version is taken for what is imported.
    ImportsCompareNothing [25] "transfer::an_import_replaces_nothing";
    /// What would leave a gap is appended.
    ImportsCloseGaps [25] "transfer::an_import_leaves_no_gap";
    /// Streams always begin at 1.
    ImportsRenumber [25] "transfer::a_stream_may_begin_at_any_version";
    /// Events are imported stream by stream.
    ImportsSort [25] "transfer::an_import_has_the_order_given";
    /// What a closed stream does not take is dropped.
    ImportsDropTheClosed [25] "transfer::a_closed_stream_takes_no_import";
    /// Events that are too large for the store are left out.
    ImportsDropTheLarge [25] "transfer::an_import_refuses_what_an_append_refuses";
    /// Half of what is imported is written before a check fails.
    ImportsCheckLate [7] "transfer::an_import_refuses_what_an_append_refuses";
    /// A dropped import has been noted as done.
    ImportsForgetTheDropped [25] "transfer::a_dropped_import_can_be_finished";
    /// What is imported wakes nobody.
    ImportsWakeNobody [17] "transfer::a_subscriber_sees_an_import" waiting;
    /// Only streams with events are listed.
    ListsTheLiving [25] "transfer::removed_streams_are_listed";
    /// A page of the list begins one too late.
    ListsSkip [25] "transfer::streams_are_listed_a_page_at_a_time";
    /// Streams are listed without regard to case.
    ListsFoldCase [25] "transfer::streams_are_listed_a_page_at_a_time";
}
