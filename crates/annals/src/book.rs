//! The chapters of the book, whose code is compiled and run as that of the README is.

macro_rules! chapters {
    ($($(#[$when:meta])* $chapter:ident: $file:literal;)*) => {
        $($(#[$when])* #[doc = include_str!(concat!("../../../docs/book/src/", $file))] mod $chapter {})*
    };
}

chapters! {
    introduction: "introduction.md";
    commands: "commands.md";
}
