//! Import: backups of other tools become recovery points.
//!
//! What is imported is looked at as a cluster would be: its objects are placed in the embedded API server, and the same
//! selection, graph and certificate are made of them as in a backup. Objects that nothing leads to come along too: the
//! other tool had them, so they are kept. Data of volumes is named by what it is and where it lies.

mod tar;
pub mod velero;
