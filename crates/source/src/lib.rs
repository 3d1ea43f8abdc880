//! Bytes in and out: what has bytes is read into a repository and written back from it.
//!
//! [`files`] treats a volume as a file tree. The crate knows the repository and the operating system;
//! it knows neither Kubernetes nor the command line, and it prints nothing: what it did and what it
//! found comes back as a `repo::Outcome`.

pub mod files;
