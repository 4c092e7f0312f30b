//! Signatures by HMAC-SHA256, and comparing without telling by the time it takes.

use data_encoding::HEXLOWER;
use ring::hmac::{HMAC_SHA256, Key, sign};
use subtle::ConstantTimeEq as _;

/// The code of a text under a key.
pub fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, key), text).as_ref().to_vec()
}

/// In lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Whether both are the same; the time it takes does not tell where they differ.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second and sixth test cases of RFC 4231: receivers compute the same.
    #[test]
    fn known_answers() {
        let answer = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hexadecimal(&answer), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let answer = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hexadecimal(&answer), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
        assert!(equal(b"ab", b"ab") && !equal(b"ab", b"ac") && !equal(b"ab", b"abc"));
    }
}
