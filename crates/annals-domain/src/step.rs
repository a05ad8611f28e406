//! Steps: commands that are executed together with others.

use std::fmt;

use annals_core::{Append, Appended, Result, Version};
use async_trait::async_trait;

use crate::{
    CommandHandler, Context, Decider, ExecuteError,
    execute::size,
    load::Loaded,
    together::{AnyRejection, Done, TogetherError},
};

/// A command to one of the aggregates, made by [`CommandHandler::step`], or by
/// [`CommandHandler::step_as`] with rejections of the type `R`.
#[async_trait]
pub trait Step<R = AnyRejection>: Send {
    /// Loads the aggregate and decides. Returns what to append, or `None` if there is nothing.
    #[doc(hidden)]
    async fn prepare(&mut self, context: &Context) -> Result<Option<Append>, TogetherError<R>>;

    /// Reports that the events of this step were appended, and returns them.
    #[doc(hidden)]
    async fn appended(&mut self, appended: Appended) -> Option<Done>;
}

impl<D: Decider<Command: Send>> CommandHandler<D> {
    /// A command to execute [together](crate::Together) with others.
    ///
    /// A step that decides on no event checks nothing: the events of the other steps are appended even
    /// if this aggregate has changed since. A store checks only the streams that it writes to, so a
    /// check has to be an event:
    ///
    /// ```
    /// # use annals_domain::{CommandHandler, Context, Decider, Together};
    /// # use std::sync::Arc;
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// enum CourseEvent {
    ///     #[serde(rename = "course-closed")] Closed,
    ///     // Says that the course was open when a student was enrolled.
    ///     #[serde(rename = "course-checked")] Checked,
    /// }
    /// enum CourseCommand { Close, Check }
    /// # #[derive(Debug)] struct IsClosed;
    /// # impl std::error::Error for IsClosed {}
    /// # impl std::fmt::Display for IsClosed {
    /// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("closed") }
    /// # }
    /// struct Course;
    ///
    /// impl Decider for Course {
    ///     const CATEGORY: &'static str = "course";
    ///     type State = bool; // whether it is closed
    ///     type Command = CourseCommand;
    ///     type Event = CourseEvent;
    ///     type Rejection = IsClosed;
    ///
    ///     fn initial(&self) -> bool { false }
    ///     fn decide(&self, command: &CourseCommand, closed: &bool) -> Result<Vec<CourseEvent>, IsClosed> {
    ///         match command {
    ///             CourseCommand::Close => Ok(vec![CourseEvent::Closed]),
    ///             CourseCommand::Check if *closed => Err(IsClosed),
    ///             // Not an empty `Vec`: if the course closes meanwhile, the append conflicts.
    ///             CourseCommand::Check => Ok(vec![CourseEvent::Checked]),
    ///         }
    ///     }
    ///     fn evolve(&self, closed: &mut bool, event: &CourseEvent) {
    ///         *closed |= matches!(event, CourseEvent::Closed);
    ///     }
    /// }
    /// ```
    pub fn step<'a>(&'a self, id: &str, command: D::Command) -> Box<dyn Step + 'a>
    where
        D::Command: 'a,
    {
        self.step_as(id, command, |rejection| AnyRejection(Box::new(rejection)))
    }

    /// [`CommandHandler::step`] with a rejection of your own type, which is the same for all steps. If
    /// it is an enum, the compiler sees that each rejection is dealt with:
    ///
    /// ```
    /// # use annals_core::Result;
    /// # use annals_domain::{CommandHandler, Context, Decider, ExecuteError, Together};
    /// enum Refused<S: Decider, C: Decider> {
    ///     ByStudent(S::Rejection),
    ///     ByCourse(C::Rejection),
    /// }
    ///
    /// async fn enrol<S: Decider<Command: Send>, C: Decider<Command: Send>>(
    ///     together: &Together,
    ///     (students, enrol): (&CommandHandler<S>, S::Command),
    ///     (courses, take_seat): (&CommandHandler<C>, C::Command),
    /// ) -> Result<&'static str> {
    ///     let steps = vec![
    ///         students.step_as("ada", enrol, Refused::<S, C>::ByStudent),
    ///         courses.step_as("rust", take_seat, Refused::ByCourse),
    ///     ];
    ///     match together.execute(steps, &Context::new()).await {
    ///         Ok(_) => Ok("enrolled"),
    ///         Err(ExecuteError::Rejected(Refused::ByStudent(_))) => Ok("the student has too many"),
    ///         Err(ExecuteError::Rejected(Refused::ByCourse(_))) => Ok("the course is full"),
    ///         Err(ExecuteError::Store(error)) => Err(error),
    ///         Err(_) => Ok("failed"),
    ///     }
    /// }
    /// ```
    pub fn step_as<'a, R: 'a>(
        &'a self,
        id: &str,
        command: D::Command,
        rejected: impl Fn(D::Rejection) -> R + Send + Sync + 'a,
    ) -> Box<dyn Step<R> + 'a>
    where
        D::Command: 'a,
    {
        Box::new(Prepared { handler: self, id: id.to_owned(), command, rejected, decided: None })
    }
}

struct Prepared<'a, D: Decider, F> {
    handler: &'a CommandHandler<D>,
    id: String,
    command: D::Command,
    /// Makes the rejection that the caller gets.
    rejected: F,
    decided: Option<Decided<D>>,
}

/// A state, and the events that were decided on it.
struct Decided<D: Decider> {
    loaded: Loaded<D::State>,
    events: Vec<D::Event>,
    /// The size of the events as they are stored.
    bytes: u64,
}

#[async_trait]
impl<D, R, F> Step<R> for Prepared<'_, D, F>
where
    D: Decider<Command: Send>,
    F: Fn(D::Rejection) -> R + Send + Sync,
{
    async fn prepare(&mut self, context: &Context) -> Result<Option<Append>, TogetherError<R>> {
        let handler = self.handler;
        let stream = handler.stream(&self.id)?;
        let mut loaded = match self.decided.take() {
            Some(Decided { mut loaded, .. }) => {
                handler.catch_up(&stream, &mut loaded).await?;
                handler.check_nothing_is_missing(&stream, &mut loaded).await?;
                loaded
            }
            None => handler.load_stream(&stream).await?,
        };
        let decide = |state: &D::State| handler.decider.decide(&self.command, state);
        let mut decided = decide(&loaded.state);
        if loaded.version == Version::NONE && decided.as_ref().map_or(true, Vec::is_empty) {
            // No append would show that the events were truncated.
            handler.check_nothing_is_missing(&stream, &mut loaded).await?;
            if loaded.version > Version::NONE {
                decided = decide(&loaded.state);
            }
        }
        let events =
            decided.map_err(|rejection| ExecuteError::Rejected((self.rejected)(rejection)))?;
        let append = if events.is_empty() {
            None
        } else {
            Some(handler.prepare(&stream, loaded.version, &events, context).await?)
        };
        let bytes = append.as_ref().map_or(0, size);
        self.decided = Some(Decided { loaded, events, bytes });
        Ok(append)
    }

    async fn appended(&mut self, appended: Appended) -> Option<Done> {
        let Decided { mut loaded, events, bytes } = self.decided.take()?;
        let stream = self.handler.stream(&self.id).ok()?;
        self.handler.appended(&stream, &mut loaded, &events, bytes, &appended).await;
        Some(Done { appended, events: Box::new(events) })
    }
}

impl<R> fmt::Debug for dyn Step<R> + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Step")
    }
}
