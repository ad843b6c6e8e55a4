//! From meaning to kernel state.
//!
//! [`automaton`] turns the rules of one container into the tables that the kernel programs walk.

pub mod automaton;
