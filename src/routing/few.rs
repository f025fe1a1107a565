//! A list that has one item almost always: that one lies in place, without an allocation.
//!
//! A million routes have a million hosts and a million backends; a list on the heap would cost each
//! of them 48 bytes more.

use std::ops::Deref;

/// An immutable list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Few<T>(Kept<T>);

/// Exactly one item is always kept in the one form, and any other number in the other.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kept<T> {
    One(T),
    Many(Box<[T]>),
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Kept::One(item) => std::slice::from_ref(item),
            Kept::Many(items) => items,
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Kept::Many(Box::default()))
    }
}

impl<T> Few<T> {
    /// The same with one item more, behind the others.
    #[must_use]
    pub fn with(self, item: T) -> Self {
        match self.0 {
            Kept::One(first) => Self(Kept::Many([first, item].into())),
            Kept::Many(items) => items.into_iter().chain([item]).collect(),
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(mut items: Vec<T>) -> Self {
        match items.pop() {
            Some(item) if items.is_empty() => Self(Kept::One(item)),
            Some(item) => {
                items.push(item);
                Self(Kept::Many(items.into()))
            }
            None => Self::default(),
        }
    }
}

impl<T> From<Box<[T]>> for Few<T> {
    fn from(items: Box<[T]>) -> Self {
        items.into_vec().into()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        items.into_iter().collect::<Vec<_>>().into()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_items_is_kept_in_order() {
        for count in 0..5 {
            let items: Vec<usize> = (0..count).collect();
            let few = Few::from(items.clone());
            assert_eq!(*few, *items);
            assert_eq!(matches!(few.0, Kept::One(_)), count == 1);
            assert_eq!(items.iter().copied().collect::<Few<_>>(), few);
            assert_eq!(items.into_iter().fold(Few::default(), Few::with), few);
        }
    }
}
