package duckdb

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// lockedBy matches DuckDB's complaint about a file that is open elsewhere.
var lockedBy = regexp.MustCompile(`Conflicting lock is held in (.*\(PID (\d+)\)[^.]*)`)

// isLocked reports whether a database could not be opened because someone has
// it: another process, or this one with another access mode.
func isLocked(err error) bool {
	e, ok := errors.AsType[*duckarrow.Error](err)
	return ok && (strings.Contains(e.Text, "Could not set lock on file") || strings.Contains(e.Text, "different configuration than existing connections") ||
		strings.Contains(e.Text, "Unique file handle conflict") || strings.Contains(e.Text, "being used by another process"))
}

// classify turns a complaint of DuckDB into an error that says what to do. It
// leaves typed errors and the causes of cancelled contexts as they are.
func classify(ctx context.Context, op, path string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*connectors.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*connectors.FencedError](err); ok {
		return err
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	out := destError(op, connectors.KindInternal, messages.CodeInternal, path, err)
	e, ok := errors.AsType[*duckarrow.Error](err)
	if !ok {
		if connectors.KindOf(err) == connectors.KindTransient { // it says so itself
			out.Kind, out.Code = connectors.KindTransient, messages.CodeDest
		}
		return out
	}
	switch {
	case isFull(e.Text):
		out.Kind, out.Code = connectors.KindTransient, messages.CodeDestFull
	case isLocked(err):
		out.Kind, out.Code = connectors.KindTransient, messages.CodeDestBusy
		if m := lockedBy.FindStringSubmatch(e.Text); m != nil {
			out.Next = "Stop process " + m[2] + ", then run again."
		}
	case strings.Contains(e.Text, "Permission denied"), strings.Contains(e.Text, "read-only"):
		out.Kind, out.Code = connectors.KindConfig, messages.CodeDestDenied
	case isDamaged(e.Text):
		out.Kind, out.Code = connectors.KindConfig, messages.CodeDestDamaged
	default:
		out.Kind, out.Code = kindOf(e)
	}
	return out
}

func kindOf(e *duckarrow.Error) (connectors.Kind, messages.Code) {
	switch e.Class {
	case duckarrow.ClassConstraint, duckarrow.ClassConversion, duckarrow.ClassRange:
		return connectors.KindData, messages.CodeValueRange
	case duckarrow.ClassTx, duckarrow.ClassTxConflict, duckarrow.ClassIO, duckarrow.ClassMemory, duckarrow.ClassInterrupt:
		return connectors.KindTransient, messages.CodeDest
	case duckarrow.ClassFatal:
		// The database is invalid until every handle is closed: end the attempt.
		return connectors.KindScanLost, messages.CodeDest
	case duckarrow.ClassCatalog:
		return connectors.KindConfig, messages.CodeDestMissing
	case "Dependency Error":
		return connectors.KindConfig, messages.CodeDest
	case duckarrow.ClassPermission:
		return connectors.KindConfig, messages.CodeDestDenied
	default: // a statement of ours that DuckDB does not take
		return connectors.KindInternal, messages.CodeInternal
	}
}

func isFull(text string) bool {
	return strings.Contains(text, "No space left on device") || strings.Contains(text, "Disk quota exceeded") ||
		strings.Contains(text, "File too large") || strings.Contains(text, "not enough space")
}

// isDamaged reports whether the file is not a database that this version reads.
func isDamaged(text string) bool {
	return strings.Contains(text, "not a valid DuckDB database file") || strings.Contains(text, "Corrupt database file") ||
		strings.Contains(text, "Trying to read a database file with version") || strings.HasPrefix(text, "Serialization Error") ||
		strings.Contains(text, "Failure while replaying WAL")
}
