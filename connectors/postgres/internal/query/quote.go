package query

import (
	"strconv"
	"strings"
)

// Ident quotes a name, exactly as it is. A server refuses a statement with a NUL byte.
func Ident(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// Qualified quotes the name of something in a schema.
func Qualified(schema, name string) string { return Ident(schema) + "." + Ident(name) }

// Literal quotes a text, exactly as it is. Where it holds a backslash it is quoted by
// dollars, because what a backslash means between quotes depends on a setting.
func Literal(text string) string {
	if !strings.Contains(text, `\`) {
		return "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	for n := 0; ; n++ {
		tag := "$q" + strconv.Itoa(n) + "$"
		if strings.Index(text+tag, tag) == len(text) {
			return tag + text + tag
		}
	}
}
