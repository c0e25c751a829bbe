package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Columns returns the columns of a schema.
func Columns(s *arrow.Schema) []Column {
	cols := make([]Column, 0, s.NumFields())
	for _, f := range s.Fields() {
		cols = append(cols, Column{Name: f.Name, Type: f.Type.String()})
	}
	return cols
}

// SchemaHash returns a short hash of columns, names, types and order.
func SchemaHash(cols []Column) string {
	h := sha256.New()
	for _, c := range cols {
		_, _ = fmt.Fprintf(h, "%q %q\n", c.Name, c.Type) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// CheckTypes refuses columns whose type differs from what the target has. New and
// missing columns are fine: a reader sees nulls where a file lacks one.
func CheckTypes(s connectors.StreamPlan, have, want []Column) error {
	for _, c := range want {
		i := slices.IndexFunc(have, func(h Column) bool { return h.Name == c.Name })
		if i < 0 || have[i].Type == c.Type {
			continue
		}
		return &connectors.Error{
			Op: "compare the schema with target " + s.Target, Kind: connectors.KindSchema, Commit: connectors.CommitNone,
			Code: messages.CodeSchemaType, Place: messages.Place{Stream: s.Stream, Field: c.Name},
			Err: fmt.Errorf("column %q is %s, earlier files of the target have %s", c.Name, c.Type, have[i].Type),
		}
	}
	return nil
}

// union returns have and the columns of more that it lacks.
func union(have, more []Column) []Column {
	out := slices.Clone(have)
	for _, c := range more {
		if !slices.ContainsFunc(out, func(h Column) bool { return h.Name == c.Name }) {
			out = append(out, c)
		}
	}
	return out
}
