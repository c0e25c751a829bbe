package config

import (
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Unavailable lists what the document asks for and this version does not have, in
// document order, each with code CodeNotAvailable. A document with an empty list
// can be run.
func (doc *Document) Unavailable() []messages.Failure {
	out := slices.Clone(doc.vault)
	add := func(path, what, next string) {
		out = append(out, doc.report.failure(problem{code: messages.CodeNotAvailable, path: path, what: what + " is not available in this version", next: next}))
	}
	stage := func(s Stage, role Role, path string) {
		switch {
		case s.Name == "":
			add(path+".use", "a plugin as "+string(role), "use a built-in connector")
		case s.connector.Planned:
			add(path+".use", "the "+string(role)+" "+s.Name, "")
		}
	}
	stage(doc.Source.Stage, RoleSource, "source")
	for i, t := range doc.Transforms {
		stage(t.Stage, RoleTransform, itemOf("transforms", i))
	}
	stage(doc.Destination.Stage, RoleDestination, "destination")
	for _, s := range doc.Source.Streams {
		doc.unavailableStream(s, add)
	}
	doc.unavailableModes(add)
	doc.unavailablePolicies(add)
	byPlace(out)
	return out
}

func (doc *Document) unavailableStream(s Stream, add func(path, what, next string)) {
	c := doc.Source.connector
	switch {
	case s.SyncMode == connectors.SyncCDC && !c.CDC:
		add(s.path+".sync_mode", "sync_mode cdc"+of(c), "use full_refresh")
	case s.SyncMode == connectors.SyncIncremental && !c.Incremental:
		add(s.path+".sync_mode", "sync_mode incremental"+of(c), "use full_refresh")
	}
	if s.Filter != "" && !c.Filter && c.Name != "" {
		add(s.path+".filter", "a filter"+of(c), "filter in a sql transform")
	}
}

func of(c Connector) string {
	if c.Name == "" {
		return ""
	}
	return " of the source " + c.Name
}

// unavailableModes reports write modes that the destination does not have.
func (doc *Document) unavailableModes(add func(path, what, next string)) {
	c := doc.Destination.connector
	if c.Name == "" {
		return
	}
	var modes []string
	for _, m := range c.Modes {
		modes = append(modes, string(m))
	}
	check := func(mode connectors.WriteMode, path string) {
		if mode != "" && !slices.Contains(c.Modes, mode) {
			add(path, "write_mode "+string(mode)+" of the destination "+c.Name, "use "+oneOf(modes))
		}
	}
	bare := false
	for _, s := range doc.Source.Streams {
		check(s.WriteMode, s.path+".write_mode")
		bare = bare || s.WriteMode == ""
	}
	if bare {
		check(doc.Destination.WriteMode, "destination.write_mode")
	}
}

// unavailablePolicies reports what the destination does not do about bad rows and
// changed shapes.
func (doc *Document) unavailablePolicies(add func(path, what, next string)) {
	dst, c := doc.Destination, doc.Destination.connector
	whose := ""
	if c.Name != "" {
		whose = " of the destination " + c.Name
	}
	if dst.OnDataError != connectors.DataFail && !c.DeadLetters {
		add("destination.on_data_error", "on_data_error "+string(dst.OnDataError)+whose, "use fail")
	}
	if dst.MetadataColumns && !c.Metadata {
		add("destination.metadata_columns", "metadata_columns"+whose, "remove it, or add the columns in a sql transform")
	}
	if n := dst.SchemaEvolution.NewColumn; n != connectors.ColumnAdd && !slices.Contains(c.NewColumns, n) {
		add("destination.schema_evolution.new_column", "new_column "+string(n)+whose, "use add, the default")
	}
	for _, axis := range []struct{ key, value, only string }{
		{"removed_column", dst.SchemaEvolution.RemovedColumn, "ignore"},
		{"type_change", dst.SchemaEvolution.TypeChange, "fail"},
		{"nullability_change", dst.SchemaEvolution.NullabilityChange, "allow"},
	} {
		if axis.value != axis.only {
			add("destination.schema_evolution."+axis.key, axis.key+" "+axis.value, "use "+axis.only+", the default")
		}
	}
}
