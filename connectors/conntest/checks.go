package conntest

// DestinationChecks lists the destination checks in the order in which they run.
func DestinationChecks() []Check[DestinationFactory] {
	return []Check[DestinationFactory]{
		{"check_changes_nothing", checkChangesNothing},
		{"open_is_repeatable", openIsRepeatable},
		{"unsupported_mode_is_refused", unsupportedModeIsRefused},
		{"begin_is_repeatable", beginIsRepeatable},
		{"unbegun_part_is_refused", unbegunPartIsRefused},
		{"plan_is_recovered", planIsRecovered},
		{"nothing_visible_before_commit", nothingBeforeCommit},
		{"commit_shows_rows_and_receipt", commitShowsRowsAndReceipt},
		{"receipt_copies_barrier", receiptCopiesBarrier},
		{"empty_commit_advances", emptyCommitAdvances},
		{"close_drops_uncommitted", closeDropsUncommitted},
		{"close_is_idempotent", closeIsIdempotent},
		{"cancel_is_prompt", cancelIsPrompt},
		{"batches_are_released_once", batchesReleasedOnce},
		{"lower_epoch_is_refused", lowerEpochIsRefused},
		{"foreign_store_is_refused", foreignStoreIsRefused},
		{"other_pipelines_are_apart", otherPipelinesAreApart},
		{"older_attempt_is_fenced", olderAttemptIsFenced},
		{"older_attempt_is_fenced_after_commit", olderAttemptIsFencedAfterCommit},
		{"older_attempt_of_another_session_is_fenced", olderAttemptOfAnotherSessionIsFenced},
		{"older_epoch_is_fenced", olderEpochIsFenced},
		{"older_load_is_fenced", olderLoadIsFenced},
		{"new_load_drops_receipts", newLoadDropsReceipts},
		{"finish_waits_for_every_part", finishWaitsForEveryPart},
		{"finish_is_repeatable", finishIsRepeatable},
		{"replace_swaps_whole", replaceSwapsWhole},
		{"parts_in_parallel", partsInParallel},
		{"upsert_last_wins", upsertLastWins},
		{"rejected_rows_are_counted", rejectedRowsAreCounted},
		{"truncate_is_applied_or_refused", truncateIsAppliedOrRefused},
		{"schema_change_is_applied_or_refused", schemaChangeIsAppliedOrRefused},
		{"odd_names_are_kept_or_refused", oddNamesAreKeptOrRefused},
		{"types_are_kept_or_refused", typesAreKeptOrRefused},
		{"crash_anywhere_is_exact", crashAnywhereIsExact},
		{"capabilities_are_declared", destinationCapabilities},
		{"changes_are_only_listed", changesAreOnlyListed},
		{"teardown_forgets_the_pipeline", teardownForgets},
		{"survey_fences_nobody", surveyFencesNobody},
	}
}

// SourceChecks lists the source checks in the order in which they run.
func SourceChecks() []Check[SourceFactory] {
	return []Check[SourceFactory]{
		{"discover_changes_nothing", discoverChangesNothing},
		{"scan_is_deterministic", scanIsDeterministic},
		{"plan_is_well_formed", planIsWellFormed},
		{"unknown_stream_is_refused", unknownStreamIsRefused},
		{"every_row_once", everyRowOnce},
		{"parts_are_independent", partsAreIndependent},
		{"resume_is_exact", resumeIsExact},
		{"barriers_are_due", barriersAreDue},
		{"ends_with_end_barrier", endsWithEndBarrier},
		{"drain_stops_exactly", drainStopsExactly},
		{"batches_are_within_limits", batchesAreWithinLimits},
		{"emitter_error_comes_back", emitterErrorComesBack},
		{"cancelled_read_is_prompt", cancelledReadIsPrompt},
		{"close_is_idempotent", readerCloseIsIdempotent},
		{"batches_are_released_once", sourceBatchesReleasedOnce},
		{"finished_load_is_followed", finishedLoadIsFollowed},
		{"unfinished_load_is_continued", unfinishedLoadIsContinued},
		{"fresh_starts_over", freshStartsOver},
		{"preview_creates_nothing", previewCreatesNothing},
		{"raw_rows_stand_for_the_same", rawRowsStandForTheSame},
		{"capabilities_are_declared", sourceCapabilities},
	}
}

// TransformChecks lists the transform checks in the order in which they run.
func TransformChecks() []Check[TransformFactory] {
	return []Check[TransformFactory]{
		{"schema_is_pure", schemaIsPure},
		{"output_is_exact", outputIsExact},
		{"output_ignores_cuts", outputIgnoresCuts},
		{"flush_leaves_nothing", flushLeavesNothing},
		{"others_pass_through", othersPassThrough},
		{"outlet_error_comes_back", outletErrorComesBack},
		{"batches_are_released_once", stageReleasesOnce},
		{"stages_are_apart", stagesAreApart},
	}
}
