//! Steps of the protocol that a test leaves out, to see that the histories notice.

/// Who is there besides writers and collectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Writers,
    /// People who hold and delete points.
    People,
    /// Nodes that write pieces, and operators that put them together.
    Pieces,
}

/// What a test breaks to see that the histories notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sabotage {
    #[default]
    None,
    /// A writer does not look for verdicts after its commit (nor before).
    WriterLooksNot,
    /// A writer does not heed the open verdicts when it begins.
    WriterIgnoresVerdicts,
    /// A writer does not mind gaps in the numbers.
    WriterIgnoresGaps,
    /// A writer does not heed marks.
    WriterIgnoresMarks,
    /// A writer tells verdicts by their numbers, which come again if somebody deletes one by hand.
    WriterGoesByNumbers,
    /// A collector does not list commits again after its verdict.
    CollectorListsNot,
    /// A collector does not mind the verdicts of others.
    CollectorIgnoresOthers,
    /// A collector deletes by verdicts that others put after it had listed commits.
    CollectorHeedsLateVerdicts,
    /// A collector deletes a sentenced pack because what is needed of it lies in another sentenced pack, too.
    CollectorCountsOnTheSentenced,
    /// A collector gives no verdict before it deletes.
    CollectorGivesNoVerdict,
    /// A collector does not wait for leases.
    CollectorIgnoresLeases,
    /// A collector does not mind that others have closed the number it takes.
    CollectorSpeaksTooLow,
    /// A collector does not look, after its verdict, for held points that are not there.
    CollectorIgnoresHolds,
    /// A collector does not mind that a point is being deleted and may come back.
    CollectorIgnoresDeletions,
    /// Who deletes a point does not say so before.
    DeleterSaysNothing,
    /// An operator does not look for verdicts before it deletes pieces.
    OperatorLooksNot,
    /// An operator looks before it commits.
    OperatorLooksTooEarly,
    /// An operator makes a point of pieces that are listed, whether or not they were acknowledged.
    OperatorCountsOnWhatIsListed,
    /// An operator takes a commit for its predecessor's point because it is listed.
    OperatorAdoptsWhatIsListed,
    /// An operator does not look, after its commit, whether the pieces are still there.
    OperatorMindsNotThatPiecesGo,
}

impl Sabotage {
    /// All that the histories notice, and which was seen to. (The others take more coincidences than thousands of histories
    /// have, and are told step by step in `gc/tests/races.rs`.)
    pub(crate) const ALL: [(Sabotage, u64); 18] = [
        (Sabotage::WriterLooksNot, 15),
        (Sabotage::WriterIgnoresVerdicts, 3_350),
        (Sabotage::WriterIgnoresGaps, 15),
        (Sabotage::WriterIgnoresMarks, 462),
        (Sabotage::CollectorListsNot, 97),
        (Sabotage::CollectorIgnoresOthers, 97),
        (Sabotage::CollectorHeedsLateVerdicts, 102_430),
        (Sabotage::CollectorCountsOnTheSentenced, 3_575),
        (Sabotage::CollectorGivesNoVerdict, 36),
        (Sabotage::CollectorIgnoresLeases, 55),
        (Sabotage::WriterGoesByNumbers, 12_092),
        (Sabotage::CollectorIgnoresHolds, 2_117),
        (Sabotage::DeleterSaysNothing, 11_160),
        (Sabotage::OperatorLooksNot, 480),
        (Sabotage::OperatorLooksTooEarly, 280),
        (Sabotage::OperatorCountsOnWhatIsListed, 65),
        (Sabotage::OperatorAdoptsWhatIsListed, 1),
        (Sabotage::OperatorMindsNotThatPiecesGo, 610),
    ];

    pub(crate) fn is_of_writers(self) -> bool {
        matches!(
            self,
            Sabotage::WriterLooksNot
                | Sabotage::WriterIgnoresVerdicts
                | Sabotage::WriterIgnoresGaps
                | Sabotage::WriterIgnoresMarks
                | Sabotage::WriterGoesByNumbers
        )
    }

    pub(crate) fn is_of_collectors(self) -> bool {
        matches!(
            self,
            Sabotage::CollectorListsNot
                | Sabotage::CollectorIgnoresOthers
                | Sabotage::CollectorHeedsLateVerdicts
                | Sabotage::CollectorCountsOnTheSentenced
                | Sabotage::CollectorGivesNoVerdict
                | Sabotage::CollectorIgnoresLeases
                | Sabotage::CollectorSpeaksTooLow
                | Sabotage::CollectorIgnoresHolds
                | Sabotage::CollectorIgnoresDeletions
        )
    }

    /// In which histories it is noticed.
    pub(crate) fn kind(self) -> Kind {
        match self {
            // It takes people who hold and delete points, and one who deletes verdicts by hand.
            Sabotage::WriterGoesByNumbers
            | Sabotage::CollectorHeedsLateVerdicts
            | Sabotage::CollectorIgnoresHolds
            | Sabotage::CollectorIgnoresDeletions
            | Sabotage::DeleterSaysNothing => Kind::People,
            Sabotage::OperatorLooksNot
            | Sabotage::OperatorLooksTooEarly
            | Sabotage::OperatorCountsOnWhatIsListed
            | Sabotage::OperatorAdoptsWhatIsListed
            | Sabotage::OperatorMindsNotThatPiecesGo => Kind::Pieces,
            _ => Kind::Writers,
        }
    }
}
