package plugin

import (
	"errors"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/duckdb"
	"rapidbyte.io/node/connectors/file"
	"rapidbyte.io/node/connectors/generator"
	"rapidbyte.io/node/connectors/sqltransform"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// Check looks for what only both ends together have wrong. It makes nothing and
// opens nothing; its error is config.Problems.
func Check(doc *config.Document) error {
	src, isSource := doc.Source.Config.(duckdb.SourceConfig)
	dst, isDestination := doc.Destination.Config.(duckdb.DestinationConfig)
	if !isSource || !isDestination || duckdb.SameFile(src, dst) == nil {
		return nil
	}
	return config.Problems{{
		Code: messages.CodeDocConflict, Kind: string(connectors.KindConfig), Where: doc.Place("destination.config.path"),
		What: "source and destination are the same DuckDB file", Next: "write to another file",
	}}
}

// Source makes the source of a stage. Its error is a *connectors.Error.
func Source(s config.Stage) (connectors.Source, error) {
	switch c := s.Config.(type) {
	case file.SourceConfig:
		return sourceOf(file.NewSource(c))
	case duckdb.SourceConfig:
		return sourceOf(duckdb.NewSource(c))
	case generator.SourceConfig:
		return sourceOf(generator.NewSource(c))
	}
	return nil, unavailable(config.RoleSource, s)
}

// Transform makes the transform of a stage. Its error is a *connectors.Error.
func Transform(s config.Stage) (connectors.Transform, error) {
	if c, ok := s.Config.(sqltransform.Config); ok {
		t, err := sqltransform.New(c)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	return nil, unavailable(config.RoleTransform, s)
}

// Destination makes the destination of a stage. One that cannot follow the policy has
// said so in its catalogue entry. Its error is a *connectors.Error.
func Destination(s config.Stage, _ connectors.WritePolicy) (connectors.Destination, error) {
	switch c := s.Config.(type) {
	case file.DestinationConfig:
		return destinationOf(file.NewDestination(c))
	case duckdb.DestinationConfig:
		return destinationOf(duckdb.NewDestination(c))
	case generator.DestinationConfig:
		return destinationOf(generator.NewDestination(c))
	}
	return nil, unavailable(config.RoleDestination, s)
}

// sourceOf keeps a nil pointer from becoming an interface that is not nil.
func sourceOf[T connectors.Source](s T, err error) (connectors.Source, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

func destinationOf[T connectors.Destination](d T, err error) (connectors.Destination, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

func unavailable(role config.Role, s config.Stage) error {
	return &connectors.Error{
		Op:     "make the " + string(role) + " " + s.Use,
		Kind:   connectors.KindConfig,
		Commit: connectors.CommitNone,
		Code:   messages.CodeNotAvailable,
		Place:  messages.Place{Field: "use"},
		Err:    errors.New("not available in this version"),
	}
}
