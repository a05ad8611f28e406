//! A digest of names and of SQL text.

/// A digest of a text (64-bit FNV-1a), to see whether it is the same as before.
pub(crate) fn digest(text: &str) -> String {
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{digest:016x}")
}
