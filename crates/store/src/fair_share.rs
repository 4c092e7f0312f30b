//! How much each of several may keep of what has room for so many. Pure.

/// The most rows that one of these may have so that all together have at most so many; none where they do not have more. The counts come
/// in their order, the smallest first.
pub(crate) fn share(counts: impl ExactSizeIterator<Item = u64> + Clone, most: u64) -> Option<u64> {
    if counts.clone().sum::<u64>() <= most {
        return None;
    }
    let (mut left, mut number) = (most, counts.len() as u64);
    for count in counts {
        let share = left / number;
        if count > share {
            return Some(share);
        }
        (left, number) = (left - count, number - 1);
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_too_much_goes_from_those_with_the_most() {
        let share = |counts: &[u64], most| super::share(counts.iter().copied(), most);
        assert_eq!(share(&[], 0), None);
        assert_eq!(share(&[3, 4], 7), None);
        assert_eq!(share(&[1, 2, 1_000], 10), Some(7));
        assert_eq!(share(&[5, 5, 5], 10), Some(3));
        assert_eq!(share(&[1, 1, 1], 2), Some(0), "there is not one for each");
    }
}
