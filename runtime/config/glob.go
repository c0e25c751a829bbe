package config

import (
	"path"
	"strings"

	"rapidbyte.io/node/messages"
)

// A source with schemas names a table of its default schema with or without it:
// "users" and "public.users" are one table. Patterns follow from that:
//
//	orders_*    tables of the default schema
//	public.*    tables of that schema, also when it is the default one
//	*.*         tables of all schemas
//
// An exclude without a schema leaves tables out whatever their schema is. Names of
// other sources are matched as a whole.

func isPattern(name string) bool { return strings.ContainsAny(name, `*?[`) }

// matches reports whether a name is the pattern's or matches it.
func matches(pattern, name string) bool {
	if pattern == name {
		return true
	}
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}

// split returns the schema of a stream, "" when the source has none, and its table.
func (doc *Document) split(name string) (schema, table string) {
	c := doc.Source.connector
	if !c.Schemas {
		return "", name
	}
	if before, after, ok := strings.Cut(name, "."); ok {
		return before, after
	}
	if schema = textOf(doc.Source.Config, "schema"); schema == "" {
		schema = c.DefaultSchema
	}
	return schema, name
}

// canonical is the same for all names of one table.
func (doc *Document) canonical(name string) string {
	schema, table := doc.split(name)
	if schema == "" {
		return table
	}
	return schema + "." + table
}

// Table returns the schema and table of a stream; the schema is empty when the source
// has none.
func (doc *Document) Table(id messages.StreamID) (schema, table string) { return doc.split(string(id)) }

// Names reports whether name, as a person gives it, is that of the stream.
func (doc *Document) Names(name string, id messages.StreamID) bool {
	return doc.canonical(name) == doc.canonical(string(id))
}

// Canonical is the same text for all names of one table.
func (doc *Document) Canonical(id messages.StreamID) string { return doc.canonical(string(id)) }

// selects reports whether the pattern of a stream stands for name.
func (doc *Document) selects(pattern, name string) bool {
	if !doc.Source.connector.Schemas {
		return matches(pattern, name)
	}
	inSchema, inTable := doc.split(pattern)
	schema, table := doc.split(name)
	return matches(inTable, table) && (inSchema == "" && schema == "" || matches(inSchema, schema))
}

// excludes reports whether pattern leaves name out.
func (doc *Document) excludes(pattern, name string) bool {
	_, table := doc.split(name)
	return doc.covers(pattern, name) || matches(pattern, table)
}

// covers reports whether pattern stands for name in any way. A transform is not to be
// left out because of how a table is spelled.
func (doc *Document) covers(pattern, name string) bool {
	return matches(pattern, name) || doc.selects(pattern, name)
}

// wider says how a pattern that matched nothing may be meant.
func (doc *Document) wider(pattern string) string {
	if !doc.Source.connector.Schemas || strings.Contains(pattern, ".") {
		return ""
	}
	schema, _ := doc.split(pattern)
	if schema == "" {
		return ""
	}
	return "a pattern without a schema stands for tables of " + quote(schema) + "; `*." + pattern + "` stands for those of all"
}
