package plugin

import (
	"errors"
	"strconv"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/duckdb"
	"rapidbyte.io/node/connectors/file"
	"rapidbyte.io/node/connectors/generator"
	"rapidbyte.io/node/connectors/postgres"
	"rapidbyte.io/node/connectors/sqltransform"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// Check looks for what only both ends together have wrong. It makes nothing and
// opens nothing; its error is config.Problems. What a pattern stands for is looked at
// once the document is expanded.
func Check(doc *config.Document) error {
	switch dst := doc.Destination.Config.(type) {
	case duckdb.DestinationConfig:
		if src, ok := doc.Source.Config.(duckdb.SourceConfig); ok && duckdb.SameFile(src, dst) != nil {
			return config.Problems{conflict(doc.Place("destination.config.path"), "source and destination are the same DuckDB file", "write to another file")}
		}
	case postgres.DestinationConfig:
		if src, ok := doc.Source.Config.(postgres.SourceConfig); ok && postgres.SameDatabase(src, dst) {
			return sameTables(doc, dst.Schema).ErrorOrNil()
		}
	}
	return nil
}

// sameTables finds streams whose target is the table that they are read from.
func sameTables(doc *config.Document, into string) (out config.Problems) {
	for _, s := range doc.Source.Streams {
		id := messages.StreamID(s.Name)
		if schema, table := doc.Table(id); schema == into && table == doc.Target(id) {
			out = append(out, conflict(doc.PlaceOf(id), "the stream "+strconv.Quote(s.Name)+" would be written into the table that it is read from",
				"set `schema:` in destination.config, or `target:` for the stream"))
		}
	}
	return out
}

func conflict(at messages.Place, what, next string) messages.Failure {
	return messages.Failure{Code: messages.CodeDocConflict, Kind: string(connectors.KindConfig), Where: at, What: what, Next: next}
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
	case postgres.SourceConfig:
		return sourceOf(postgres.NewSource(c))
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
func Destination(s config.Stage, policy connectors.WritePolicy) (connectors.Destination, error) {
	switch c := s.Config.(type) {
	case file.DestinationConfig:
		return destinationOf(file.NewDestination(c))
	case duckdb.DestinationConfig:
		return destinationOf(duckdb.NewDestination(c))
	case generator.DestinationConfig:
		return destinationOf(generator.NewDestination(c))
	case postgres.DestinationConfig:
		return destinationOf(postgres.NewDestination(c, policy))
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
