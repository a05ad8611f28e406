//! The chapters of the book: their code is compiled and run by the doctests of this crate, as the
//! README's is.

macro_rules! chapters {
    ($($(#[$when:meta])* $chapter:ident: $file:literal;)*) => {
        $(
            $(#[$when])*
            #[doc = include_str!(concat!("../../../docs/book/src/", $file))]
            mod $chapter {}
        )*
    };
}

chapters! {
    introduction: "introduction.md";
    deciders: "deciders.md";
    commands: "commands.md";
    events: "events.md";
    snapshots: "snapshots.md";
    projections: "projections.md";
    leaders: "leaders.md";
    service: "service.md";
    #[cfg(feature = "personal")]
    personal: "personal.md";
    processes: "processes.md";
    observability: "observability.md";
    testing: "testing.md";
}
