//! Claims about layers.
