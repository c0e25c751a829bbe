package sqltransform

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/internal/duckarrow"
	"rapidbyte.io/node/messages"
)

// schemaError is a refusal at plan time.
func (t *Transform) schemaError(stream messages.StreamID, code messages.Code, field string, err error) error {
	return &connectors.Error{
		Op: "plan the sql transform", Kind: connectors.KindSchema, Code: code,
		Place: messages.Place{Stream: stream, Stage: connectors.StageTransform, Field: field}, Err: err,
	}
}

func (a *analysis) queryError(err error) error {
	return a.t.schemaError(a.stream, messages.CodeSchemaQuery, "", err)
}

// missingColumn matches what DuckDB says of a column that is not there.
var missingColumn = regexp.MustCompile(`Referenced column "((?:[^"]|"")*)" (?:not found|was not found)|does not have a column named "((?:[^"]|"")*)"`)

// bindError classifies why DuckDB refuses the query.
func (a *analysis) bindError(err error, tree *syntax) error {
	e, ok := errors.AsType[*duckarrow.Error](err)
	if !ok {
		return a.queryError(err)
	}
	switch e.Class {
	case duckarrow.ClassInternal, duckarrow.ClassFatal:
		return a.t.engineError(a.stream, err)
	case duckarrow.ClassCatalog:
		if strings.Contains(e.Text, "Table with name") {
			return a.queryError(fmt.Errorf("the query reads %s, the stream it is applied to is %s: %w", strings.Join(tree.tables, ", "), a.stream, err))
		}
	case duckarrow.ClassBinder:
		if m := missingColumn.FindStringSubmatch(e.Text); m != nil {
			return a.t.schemaError(a.stream, messages.CodeSchemaColumn, m[1]+m[2], err)
		}
	default:
	}
	return a.queryError(err)
}

// engineError is a failure of the embedded database itself.
func (t *Transform) engineError(stream messages.StreamID, err error) error {
	out := &connectors.Error{
		Op: "run the embedded SQL engine", Kind: connectors.KindInternal, Code: messages.CodeInternal,
		Place: messages.Place{Stream: stream, Stage: connectors.StageTransform}, Err: err,
	}
	if e, ok := errors.AsType[*duckarrow.Error](err); ok && e.Class == duckarrow.ClassMemory {
		out.Kind, out.Code, out.Next = connectors.KindConfig, messages.CodeDocValue, memoryAdvice
	}
	return out
}

const memoryAdvice = "Raise max_memory of the sql transform, or `resources.max_batch_bytes` down."

// noteInternal drops the databases when DuckDB says that they are unusable.
func (t *Transform) noteInternal(err error) {
	if e, ok := errors.AsType[*duckarrow.Error](err); ok && (e.Class == duckarrow.ClassInternal || e.Class == duckarrow.ClassFatal) {
		t.dbs.spoiled()
	}
}

// runError classifies a failure of the query over rows. place tells the rows.
func (t *Transform) runError(ctx context.Context, stream messages.StreamID, place string, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return err
	}
	t.noteInternal(err)
	out := &connectors.Error{
		Op: "run the query over " + place, Kind: connectors.KindData, Code: messages.CodeRowBroken,
		Place: messages.Place{Stream: stream, Stage: connectors.StageTransform},
		Next:  "Mend the row at the source, or the query: TRY_CAST(x AS T) gives NULL where CAST fails.", Err: err,
	}
	if errors.Is(err, duckarrow.ErrRowTooLarge) {
		out.Code, out.Next = messages.CodeRowTooLarge, ""
		return out
	}
	e, ok := errors.AsType[*duckarrow.Error](err)
	if !ok {
		out.Kind, out.Code, out.Next = connectors.KindInternal, messages.CodeInternal, ""
		return out
	}
	switch e.Class {
	case duckarrow.ClassMemory:
		out.Kind, out.Code, out.Next = connectors.KindConfig, messages.CodeDocValue, memoryAdvice
	case duckarrow.ClassInternal, duckarrow.ClassFatal:
		out.Kind, out.Code, out.Next = connectors.KindInternal, messages.CodeInternal, ""
	default: // the row's
	}
	return out
}
