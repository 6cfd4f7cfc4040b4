//! Claims about copying.
