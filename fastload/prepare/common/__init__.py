"""What several verbs share: the default pipeline, samples as stored, reports, progress and the sheet."""
