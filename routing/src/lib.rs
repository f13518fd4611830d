//! Where events go, by which rules. No I/O; time is an argument.
