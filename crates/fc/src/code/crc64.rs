//! The CRC-64 by which Function Compute names code: ECMA-182's polynomial, reflected, as in XZ.

const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;

static TABLE: [u64; 256] = table();

const fn table() -> [u64; 256] {
    let mut table = [0u64; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// The checksum of bytes.
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    let step = |crc: u64, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8;
    !bytes.iter().fold(!0, step)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(super::crc64(b"123456789"), 0x995d_c9bb_df19_39fa);
        assert_eq!(super::crc64(b""), 0);
    }
}
