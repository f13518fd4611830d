use bytes::{BufMut, BytesMut};

const MAX_BYTES: usize = 10;

pub(super) fn put(number: u64, out: &mut BytesMut) {
    let mut rest = number;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

pub(super) fn encoded_len(number: u64) -> usize {
    number.checked_ilog2().unwrap_or(0) as usize / 7 + 1
}

/// Takes a number off the front; `None` where the bytes end, or it has more than 64 bits or a needless byte.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for index in 0..MAX_BYTES {
        let byte = *bytes.get(index)?;
        let bits = u64::from(byte & 0x7f);
        if index == MAX_BYTES - 1 && byte > 1 {
            return None;
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return None;
            }
            *bytes = &bytes[index + 1..];
            return Some(number);
        }
    }
    None
}

pub(super) fn zigzag(number: i32) -> u64 {
    u64::from(((number << 1) ^ (number >> 31)) as u32)
}

pub(super) fn unzigzag(number: u64) -> Option<i32> {
    let number = u32::try_from(number).ok()?;
    Some((number >> 1) as i32 ^ -((number & 1) as i32))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{encoded_len, put, take, unzigzag, zigzag};

    #[test]
    fn numbers_return_and_have_one_form() {
        let edges = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for number in edges {
            let mut out = BytesMut::new();
            put(number, &mut out);
            assert_eq!(out.len(), encoded_len(number), "{number}");
            let mut rest = &out[..];
            assert_eq!((take(&mut rest), rest.len()), (Some(number), 0));
            assert_eq!(take(&mut &out[..out.len() - 1]), None);
        }
        for bad in [
            &[][..],
            &[0x80],
            &[0x80, 0],
            &[0xff; 10],
            &[0xff; 11],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
        ] {
            assert_eq!(take(&mut &*bad), None, "{bad:?}");
        }
        for number in [0, 1, -1, 2, -2, i32::MAX, i32::MIN] {
            assert_eq!(unzigzag(zigzag(number)), Some(number));
        }
        assert_eq!(unzigzag(u64::from(u32::MAX) + 1), None);
    }
}
