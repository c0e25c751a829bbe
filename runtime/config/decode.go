package config

import (
	"cmp"
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// The tags by which the parser names types of scalars.
const (
	strTag   = "!!str"
	nullTag  = "!!null"
	boolTag  = "!!bool"
	mergeTag = "!!merge"
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	secretType   = reflect.TypeFor[connectors.Secret]()
	sizeType     = reflect.TypeFor[connectors.ByteSize]()
)

// decoder fills Go values from nodes. It knows every problem by the end, so it
// never stops at one.
type decoder struct {
	report
	env      Env
	vault    []messages.Failure    // references to a vault
	hidden   []hidden              // resolved values, in document order
	deferred map[string]*yaml.Node // config sections, until `use` says what they are
	single   []string              // key paths where one item stands for a list of one
	fields   map[reflect.Type][]field
}

func place(n *yaml.Node) position { return position{n.Line, n.Column} }

// value decodes n into v, which holds its zero value.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, r rules) {
	if _, known := d.at[path]; !known {
		d.at[path] = place(n)
	}
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return // reported by structure
	}
	t := v.Type()
	switch {
	case t == durationType || isText(t):
		d.scalar(n, v, path, r)
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		d.value(n, v.Elem(), path, r)
	case t.Kind() == reflect.Struct:
		d.mapping(n, v, path)
	case t.Kind() == reflect.Slice:
		d.list(n, v, path, r)
	case t.Kind() == reflect.Map:
		d.table(n, v, path, r)
	case t.Kind() == reflect.Interface:
		if x := d.anything(n, path); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		d.scalar(n, v, path, r)
	}
}

// isText reports whether t reads itself from a text.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// mismatch reports a value of the wrong kind.
func (d *decoder) mismatch(n *yaml.Node, path string, r rules, expected string) {
	d.add(problem{
		code: messages.CodeDocValue, path: path, at: place(n),
		what: "found " + describe(n, r.secret) + ", expected " + expected,
	})
}

func describe(n *yaml.Node, secret bool) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "nothing"
	case secret:
		return "a value"
	}
	return quote(n.Value)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == nullTag }

// pairs calls fn for each key of a mapping, once.
func (d *decoder) pairs(n *yaml.Node, path string, fn func(k, v *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		switch first, twice := seen[k.Value]; {
		case k.Kind != yaml.ScalarNode || k.Tag == nullTag || k.Value == "":
			if k.Kind != yaml.AliasNode {
				d.add(problem{
					code: messages.CodeDocSyntax, path: path, at: place(k), what: "found a key that is no text",
					next: "put quotes around a text that begins with { or [",
				})
			}
		case k.Tag == mergeTag || k.Style&yaml.TaggedStyle != 0: // reported by structure
		case twice:
			d.add(problem{
				code: messages.CodeDocSyntax, path: childOf(path, k.Value), at: place(k),
				what: fmt.Sprintf("the key %s is given twice, first in line %d", quote(k.Value), first),
				next: "remove one of the two",
			})
		default:
			seen[k.Value] = k.Line
			fn(k, n.Content[i+1])
		}
	}
}

// mapping decodes a struct. An empty value counts as one without keys.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	fields := d.fieldsOf(v.Type())
	if n.Kind != yaml.MappingNode && !isNull(n) {
		d.mismatch(n, path, rules{}, "a mapping with the keys "+oneOf(keysOf(fields)))
		return
	}
	given := map[string]bool{}
	if n.Kind == yaml.MappingNode {
		d.pairs(n, path, func(k, val *yaml.Node) {
			i := slices.IndexFunc(fields, func(f field) bool { return f.key == k.Value })
			if i < 0 {
				d.unknownKey(k, path, fields)
				return
			}
			f := fields[i]
			at := childOf(path, f.key)
			if isNull(val) { // "key:" is the same as no key
				return
			}
			given[f.key] = true
			d.at[at] = place(val)
			if f.deferred {
				d.deferred[at] = val
				return
			}
			d.value(val, v.FieldByIndex(f.index), at, f.rules)
		})
	}
	for _, f := range fields {
		d.absent(v.FieldByIndex(f.index), childOf(path, f.key), f, given[f.key])
	}
}

// absent completes what the document leaves out.
func (d *decoder) absent(v reflect.Value, path string, f field, given bool) {
	switch {
	case f.required && d.sound(path) && (!given || empty(v)):
		d.add(problem{
			code: messages.CodeDocMissing, path: path,
			what: "the key `" + f.key + "` is " + lack(given) + ", expected " + expected(v.Type(), f.rules),
		})
	case given || f.deferred:
	case f.rules.defaults != nil:
		setDefault(v, f.rules.defaults)
	case v.Kind() == reflect.Struct && !isText(v.Type()):
		for _, inner := range d.fieldsOf(v.Type()) {
			inner.required = false // of something that is not there
			d.absent(v.FieldByIndex(inner.index), childOf(path, inner.key), inner, false)
		}
	}
}

func (d *decoder) fieldsOf(t reflect.Type) []field {
	fields, ok := d.fields[t]
	if !ok {
		fields = fieldsOf(t)
		d.fields[t] = fields
	}
	return fields
}

func lack(given bool) string {
	if given {
		return "empty"
	}
	return "missing"
}

// empty reports whether a required value says nothing.
func empty(v reflect.Value) bool {
	if k := v.Kind(); k == reflect.String || k == reflect.Slice || k == reflect.Map {
		return v.Len() == 0
	}
	return v.Type() == secretType && v.IsZero()
}

func (d *decoder) unknownKey(k *yaml.Node, path string, fields []field) {
	keys := keysOf(fields)
	d.add(problem{
		code: messages.CodeDocKey, path: childOf(path, k.Value), at: place(k),
		what: "unknown key " + quote(k.Value) + ", expected " + oneOf(keys),
		next: cmp.Or(belongs(k.Value), didYouMean(k.Value, keys)),
	})
}

// belongs says where a key has its place that is unknown where it stands.
func belongs(key string) string {
	var homes []string
	var walk func(t reflect.Type, path string)
	walk = func(t reflect.Type, path string) {
		switch {
		case t.Kind() == reflect.Pointer:
			walk(t.Elem(), path)
		case t.Kind() == reflect.Slice:
			walk(t.Elem(), path+"[]")
		case t.Kind() == reflect.Struct && !isText(t):
			for _, f := range fieldsOf(t) {
				if f.key == key && path != "" {
					homes = append(homes, "`"+path+"`")
				}
				walk(t.FieldByIndex(f.index).Type, childOf(path, f.key))
			}
		}
	}
	walk(reflect.TypeFor[Document](), "")
	if len(homes) == 0 {
		return ""
	}
	return "it belongs to " + oneOf(homes)
}

// list decodes a slice; a single item may stand for a list of one where r says so.
func (d *decoder) list(n *yaml.Node, v reflect.Value, path string, r rules) {
	switch {
	case n.Kind == yaml.SequenceNode:
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, c := range n.Content {
			d.value(c, v.Index(i), itemOf(path, i), r.item())
		}
	case r.loose && !isNull(n):
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		d.single = append(d.single, path)
		d.value(n, v.Index(0), path, r.item())
		return
	default:
		d.mismatch(n, path, r, expected(v.Type(), r))
		return
	}
	switch size := v.Len(); {
	case size == 0 && r.itemsMin > 0:
		d.add(problem{code: messages.CodeDocMissing, path: path, at: place(n), what: "the list is empty, expected " + cmp.Or(r.expect, "at least one item")})
	case size < r.itemsMin || r.itemsMax > 0 && size > r.itemsMax:
		d.add(problem{
			code: messages.CodeDocValue, path: path, at: place(n),
			what: fmt.Sprintf("found a list of %d items, expected %s", size, span(r.itemsMin, r.itemsMax)),
		})
	}
	if r.unique && v.Type().Elem().Kind() == reflect.String {
		d.distinct(v, path)
	}
}

// distinct refuses a text that a list holds twice.
func (d *decoder) distinct(v reflect.Value, path string) {
	seen := map[string]bool{}
	for i := range v.Len() {
		at, item := itemOf(path, i), v.Index(i).String()
		if seen[item] && d.sound(at) {
			d.add(problem{code: messages.CodeDocValue, path: at, what: "found " + d.show(at, item) + " twice, expected each item once"})
		}
		seen[item] = true
	}
}

// table decodes a map from text.
func (d *decoder) table(n *yaml.Node, v reflect.Value, path string, r rules) {
	if n.Kind != yaml.MappingNode {
		d.mismatch(n, path, r, "a mapping")
		return
	}
	t := v.Type()
	v.Set(reflect.MakeMap(t))
	d.pairs(n, path, func(k, val *yaml.Node) {
		item := reflect.New(t.Elem()).Elem()
		d.value(val, item, childOf(path, k.Value), r.item())
		v.SetMapIndex(reflect.ValueOf(k.Value).Convert(t.Key()), item)
	})
}

// anything decodes what no struct describes: the config of a plugin.
func (d *decoder) anything(n *yaml.Node, path string) any {
	d.at[path] = place(n)
	switch {
	case n.Kind == yaml.MappingNode:
		out := map[string]any{}
		d.pairs(n, path, func(k, val *yaml.Node) { out[k.Value] = d.anything(val, childOf(path, k.Value)) })
		return out
	case n.Kind == yaml.SequenceNode:
		out := make([]any, len(n.Content))
		for i, c := range n.Content {
			out[i] = d.anything(c, itemOf(path, i))
		}
		return out
	case n.Kind != yaml.ScalarNode || isNull(n) || n.Style&yaml.TaggedStyle != 0:
		return nil
	case n.Tag == "!!timestamp": // a date stays as it is written
		return n.Value
	case n.Tag == strTag:
		return d.expand(n.Value, place(n), path).value
	}
	var x any
	if err := n.Decode(&x); err != nil {
		d.mismatch(n, path, rules{}, "a plain value")
	}
	return x
}

func span(low, high int) string {
	switch {
	case high == 0:
		return fmt.Sprintf("at least %d", low)
	case low == high:
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d to %d", low, high)
}

// expected says in words what a value of type t may be.
func expected(t reflect.Type, r rules) string {
	switch {
	case r.expect != "":
		return r.expect
	case len(r.enum) > 0:
		return oneOf(r.enum)
	case t == durationType:
		return "a duration such as 90s, 10m or 1h30m"
	case t == sizeType:
		return "a number of bytes such as 65536, 64kb, 64mb or 1gb" + within(r)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expected(t.Elem(), r)
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number" + within(r)
	case reflect.Float32, reflect.Float64:
		return "a number" + within(r)
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		if !isText(t) {
			return "a mapping"
		}
	default:
	}
	switch {
	case r.lengthMax > 0:
		if r.lengthMin == 1 && r.lengthMax == 1 {
			return "a single character"
		}
		return fmt.Sprintf("text of %s characters", span(r.lengthMin, r.lengthMax))
	case r.pattern != nil:
		return "text of the form " + strings.Trim(r.pattern.String(), "^$")
	}
	return "text"
}

func within(r rules) string {
	switch {
	case r.min != "" && r.max != "":
		return " from " + r.min + " to " + r.max
	case r.min != "":
		return " of at least " + r.min
	case r.max != "":
		return " of at most " + r.max
	}
	return ""
}
