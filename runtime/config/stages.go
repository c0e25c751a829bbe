package config

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// stages decodes every config section by what `use` names.
func (d *decoder) stages(doc *Document, cat Catalogue) {
	if d.has("source") {
		d.stage(&doc.Source.Stage, RoleSource, "source", cat)
	}
	for i := range doc.Transforms {
		d.stage(&doc.Transforms[i].Stage, RoleTransform, itemOf("transforms", i), cat)
	}
	if d.has("destination") {
		d.stage(&doc.Destination.Stage, RoleDestination, "destination", cat)
	}
}

func (d *decoder) stage(s *Stage, role Role, path string, cat Catalogue) {
	if s.Use == "" || !d.sound(path+".use") {
		return // without a connector nobody knows what config means
	}
	at := path + ".config"
	n := d.deferred[at]
	if isReference(s.Use) {
		s.Config = map[string]any{}
		if n != nil {
			d.value(n, reflect.ValueOf(&s.Config).Elem(), at, rules{})
		}
		return
	}
	c, ok := cat.find(role, s.Use)
	if !ok {
		d.unknownConnector(s.Use, role, path+".use", cat)
		return
	}
	s.Name, s.connector = c.Name, c
	if n == nil {
		n = &yaml.Node{Kind: yaml.MappingNode, Line: d.find(path).line, Column: d.find(path).column}
	}
	shape := reflect.New(reflect.TypeOf(c.Shape)).Elem()
	shape.Set(reflect.ValueOf(c.Shape))
	first := len(d.hidden)
	d.value(n, shape, at, rules{})
	d.ask(shape, at, d.hidden[first:])
	s.Config = shape.Interface()
}

func (d *decoder) unknownConnector(use string, role Role, path string, cat Catalogue) {
	p := problem{
		code: messages.CodeDocValue, path: path,
		what: "found " + d.show(path, use) + ", expected a " + string(role) + ": " + oneOf(cat.names(role, false)),
	}
	if roles := cat.roles(use); len(roles) > 0 {
		p.what += "; it is a " + oneOf(roles)
	} else if _, ref := d.shown[path]; !ref {
		p.next = didYouMean(use, cat.names(role, true))
	}
	d.add(p)
}

// ask adds what the connector itself finds wrong with its config. What is only a
// consequence of a problem that is known already is left out.
func (d *decoder) ask(shape reflect.Value, at string, values []hidden) {
	c, ok := reflect.TypeAssert[interface{ Problems() []connectors.Problem }](shape.Addr())
	if !ok {
		return
	}
	for _, p := range c.Problems() {
		path := d.locate(at, p.Path)
		if !d.sound(path) || d.below(path) {
			continue
		}
		code := messages.CodeDocValue
		if p.Path != "" && !d.has(path) {
			code = messages.CodeDocMissing
		}
		d.add(problem{code: code, path: path, what: scrub(p.Message, values)})
	}
}

// locate turns a path that a connector gives into the document's key path.
func (d *decoder) locate(at, given string) string {
	if given == "" {
		return at
	}
	path := at + "." + given
	for _, list := range d.single { // the connector sees a list where the user wrote none
		if rest, ok := strings.CutPrefix(path, itemOf(list, 0)); ok {
			path = list + rest
		}
	}
	// The rest behind some dot may be one key of a map that has dots itself.
	for i := len(at); i < len(path) && !d.has(path); i++ {
		if odd := childOf(path[:i], strings.TrimPrefix(path[i:], ".")); path[i] == '.' && d.has(odd) {
			return odd
		}
	}
	return path
}

// below reports whether a problem or an unresolved reference lies under path.
func (d *decoder) below(path string) bool {
	under := func(m map[string]bool) bool {
		for at := range m {
			if strings.HasPrefix(at, path+".") || strings.HasPrefix(at, path+"[") {
				return true
			}
		}
		return false
	}
	return under(d.bad) || under(d.open)
}

// scrub replaces resolved values and secrets in a connector's text by what stands
// for them. Short values are replaced only where they stand alone.
func scrub(message string, values []hidden) string {
	const shortMax = 3
	longest := slices.SortedStableFunc(slices.Values(values), func(a, b hidden) int { return cmp.Compare(len(b.value), len(a.value)) })
	for _, h := range longest { // a value may be part of another one
		escaped := strconv.Quote(h.value)
		for _, v := range []string{h.value, escaped[1 : len(escaped)-1]} {
			if len(v) <= shortMax {
				message = replaceWord(message, v, h.shown)
			} else {
				message = strings.ReplaceAll(message, v, h.shown)
			}
		}
	}
	return message
}

func replaceWord(s, word, with string) string {
	if word == "" {
		return s
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, word)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		if (before == "" || !isWord(before[len(before)-1])) && (after == "" || !isWord(after[0])) {
			out.WriteString(with)
		} else {
			out.WriteString(word)
		}
		s = after
	}
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
