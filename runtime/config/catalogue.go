package config

import (
	"reflect"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
)

// Role is the place of a connector in a pipeline.
type Role string

// The roles.
const (
	RoleSource      Role = "source"
	RoleTransform   Role = "transform"
	RoleDestination Role = "destination"
)

// Connector describes one built-in connector in one role.
type Connector struct {
	Name    string   // what `use:` says
	Aliases []string // further names
	Role    Role
	Shape   any  // its Config struct, by value, with what holds before the document is read
	Planned bool // known and validated, but not part of this version

	// Of a source: which rows it can read, and how.
	Incremental bool // behind a cursor
	CDC         bool // from a log of changes
	Filter      bool // streams[].filter
	Files       bool // streams[].path; without it config.path is required
	Schemas     bool // its stream names are qualified: schema.table

	DefaultSchema string // of names without one, where config.schema says none

	// Of a destination: the write modes that it supports, and what it does beside.
	Modes       []connectors.WriteMode
	DeadLetters bool                      // on_data_error skip and dlq
	Metadata    bool                      // metadata_columns
	NewColumns  []connectors.ColumnPolicy // schema_evolution.new_column, beside the default
}

// Catalogue lists the built-in connectors.
type Catalogue []Connector

// find returns the connector of a role by name or alias.
func (c Catalogue) find(role Role, use string) (Connector, bool) {
	for _, e := range c {
		if e.Role == role && (e.Name == use || slices.Contains(e.Aliases, use)) {
			return e, true
		}
	}
	return Connector{}, false
}

// names lists what `use:` takes for a role; with aliases, all of it.
func (c Catalogue) names(role Role, aliases bool) []string {
	var out []string
	for _, e := range c {
		if e.Role != role {
			continue
		}
		out = append(out, e.Name)
		if aliases {
			out = append(out, e.Aliases...)
		}
	}
	return out
}

// roles lists the roles that a name has.
func (c Catalogue) roles(use string) []string {
	var out []string
	for _, r := range []Role{RoleSource, RoleTransform, RoleDestination} {
		if _, ok := c.find(r, use); ok {
			out = append(out, string(r))
		}
	}
	return out
}

// isReference reports whether use names a plugin instead of a built-in connector:
// a path, a registry reference or a digest.
func isReference(use string) bool {
	return strings.ContainsAny(use, "/@:") || strings.HasSuffix(use, ".wasm")
}

// textOf returns the value of a text key of a config struct, "" when it has none.
func textOf(cfg any, key string) string {
	v := reflect.ValueOf(cfg)
	if v.Kind() != reflect.Struct {
		return ""
	}
	for _, f := range fieldsOf(v.Type()) {
		if f.key == key && !f.deferred {
			if s := v.FieldByIndex(f.index); s.Kind() == reflect.String {
				return s.String()
			}
		}
	}
	return ""
}
