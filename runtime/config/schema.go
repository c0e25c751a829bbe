package config

import (
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/invopop/jsonschema"
)

// referencePattern is a text that holds a ${reference}: it may stand for any scalar.
const referencePattern = `\$\{`

var parallelismType = reflect.TypeFor[Parallelism]()

// Schema returns the JSON Schema (draft 2020-12) of a pipeline document, with the
// config of every connector of cat. It is made from the same tags, read the same
// way, as the decoder uses; it says less than Parse, which also knows how keys
// relate. The text ends with a line break and is the same for the same cat.
func Schema(cat Catalogue) ([]byte, error) {
	b := builder{defs: jsonschema.Definitions{"Reference": {
		Type: "string", Pattern: referencePattern,
		Description: "A text with ${NAME}, ${NAME:-default} or ${file:/path}.",
	}}}
	b.structure(reflect.TypeFor[Document]())
	root := b.defs["Document"]
	delete(b.defs, "Document")
	b.stage("Source", RoleSource, cat)
	b.stage("Transform", RoleTransform, cat)
	b.stage("Destination", RoleDestination, cat)
	root.Version = jsonschema.Version
	root.Title = "Pipeline document"
	root.Description = "A pipeline: where rows are read, what is done to them, where they are written."
	root.Definitions = b.defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the schema of the pipeline document: %w", err)
	}
	return append(out, '\n'), nil
}

// builder collects one definition per struct type.
type builder struct{ defs jsonschema.Definitions }

// structure defines t and returns a reference to it.
func (b builder) structure(t reflect.Type) *jsonschema.Schema {
	name := defName(t)
	if _, ok := b.defs[name]; ok && name != "" {
		return &jsonschema.Schema{Ref: "#/$defs/" + name}
	}
	s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
	if name != "" {
		b.defs[name] = s
	}
	for _, f := range fieldsOf(t) {
		inner := t.FieldByIndex(f.index).Type
		if f.required && inner.Kind() == reflect.String {
			f.rules.lengthMin = max(1, f.rules.lengthMin)
		}
		p := b.value(inner, f.rules)
		if f.deferred {
			p = &jsonschema.Schema{Type: "object"}
		}
		p.Description = f.about
		s.Properties.Set(f.key, p)
		if f.required {
			s.Required = append(s.Required, f.key)
		}
	}
	if name == "" {
		return s
	}
	return &jsonschema.Schema{Ref: "#/$defs/" + name}
}

// defName qualifies the types of connectors by their package: several have a
// SourceConfig. Anonymous types have no definition.
func defName(t reflect.Type) string {
	name := t.Name()
	if name == "" || t.PkgPath() == reflect.TypeFor[Document]().PkgPath() {
		return name
	}
	pkg := path.Base(t.PkgPath())
	return strings.ToUpper(pkg[:1]) + pkg[1:] + strings.ToUpper(name[:1]) + name[1:]
}

// value describes a value of type t under rules r.
func (b builder) value(t reflect.Type, r rules) *jsonschema.Schema {
	switch {
	case t == durationType || isText(t):
		return b.scalar(t, r)
	case t.Kind() == reflect.Pointer:
		return b.value(t.Elem(), r)
	case t.Kind() == reflect.Struct:
		return b.structure(t)
	case t.Kind() == reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: b.value(t.Elem(), r.item())}
	case t.Kind() == reflect.Interface:
		return &jsonschema.Schema{Type: "object"}
	case t.Kind() != reflect.Slice:
		return b.scalar(t, r)
	}
	list := &jsonschema.Schema{
		Type: "array", Items: b.value(t.Elem(), r.item()), UniqueItems: r.unique,
		MinItems: countOf(r.itemsMin), MaxItems: countOf(r.itemsMax),
	}
	s := list
	if r.loose {
		s = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{b.value(t.Elem(), r.item()), list}}
	}
	if r.defaults != nil {
		s.Default = r.defaults
	}
	return s
}

// scalar describes a value without parts. A ${reference} may stand for each; where
// a plain text would not allow it, it is an alternative.
func (b builder) scalar(t reflect.Type, r rules) *jsonschema.Schema {
	s := &jsonschema.Schema{}
	var also *jsonschema.Schema // besides s and a reference
	var standard any            // the default
	text := ""
	if len(r.defaults) > 0 {
		text = r.defaults[0]
		standard = text
	}
	switch {
	case t == durationType:
		s.Type, s.Pattern = "string", `^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+$`
	case t == sizeType:
		s.Type, s.Pattern = "string", `^\s*[0-9]+\s*([kKmMgG]?[bB])?\s*$`
		also = &jsonschema.Schema{Type: "integer", Minimum: "0"}
	case t == secretType:
		s.Type = "string"
		also = &jsonschema.Schema{Type: "number"}
	case t == parallelismType:
		s.Enum = []any{"auto"}
		also = &jsonschema.Schema{Type: "integer", Minimum: "1", Maximum: json.Number(strconv.Itoa(parallelismMax))}
	case isText(t) || t.Kind() == reflect.String:
		s.Type = "string"
	case t.Kind() == reflect.Bool:
		s.Type = "boolean"
		standard = text == "true"
	case t.Kind() == reflect.Float32 || t.Kind() == reflect.Float64:
		s.Type = "number"
		standard = json.Number(text)
	default:
		s.Type = "integer"
		standard = json.Number(text)
	}
	restrict(s, r)
	takesAny := s.Type == "string" && len(s.Enum) == 0 && s.Pattern == "" && s.MaxLength == nil
	if !takesAny || also != nil {
		options := []*jsonschema.Schema{s}
		if also != nil {
			options = append(options, also)
		}
		s = &jsonschema.Schema{AnyOf: append(options, &jsonschema.Schema{Ref: "#/$defs/Reference"})}
	}
	if len(r.defaults) > 0 {
		s.Default = standard
	}
	return s
}

// restrict carries the rules over; the bounds of a byte size are left to Parse.
func restrict(s *jsonschema.Schema, r rules) {
	for _, e := range r.enum {
		s.Enum = append(s.Enum, e)
	}
	if r.pattern != nil {
		s.Pattern = r.pattern.String()
	}
	s.MinLength, s.MaxLength = countOf(r.lengthMin), countOf(r.lengthMax)
	if s.Type == "integer" || s.Type == "number" {
		s.Minimum, s.Maximum = json.Number(r.min), json.Number(r.max)
	}
}

func countOf(n int) *uint64 {
	if n == 0 {
		return nil
	}
	u := uint64(n)
	return &u
}

// stage binds the config of a stage to what its `use` names.
func (b builder) stage(def string, role Role, cat Catalogue) {
	s := b.defs[def]
	var names []any
	for _, c := range cat {
		if c.Role != role {
			continue
		}
		own := []any{c.Name}
		for _, a := range c.Aliases {
			own = append(own, a)
		}
		names = append(names, own...)
		condition := &jsonschema.Schema{Properties: jsonschema.NewProperties(), Required: []string{"use"}}
		condition.Properties.Set("use", &jsonschema.Schema{Enum: own})
		then := &jsonschema.Schema{Properties: jsonschema.NewProperties()}
		shape := reflect.TypeOf(c.Shape)
		then.Properties.Set("config", b.structure(shape))
		if slices.ContainsFunc(fieldsOf(shape), func(f field) bool { return f.required }) {
			then.Required = []string{"config"}
		}
		s.AllOf = append(s.AllOf, &jsonschema.Schema{If: condition, Then: then})
	}
	use, _ := s.Properties.Get("use")
	s.Properties.Set("use", &jsonschema.Schema{
		Description: use.Description,
		AnyOf: []*jsonschema.Schema{
			{Type: "string", Enum: names},
			{Type: "string", Pattern: `[/@:]|\.wasm$`, Description: "Plugin reference."},
			{Ref: "#/$defs/Reference"},
		},
	})
}
