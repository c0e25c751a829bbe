package config

import (
	"cmp"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"rapidbyte.io/node/messages"
)

const numberMax = 40 // characters of a number that are shown as they are

// errShape says that a text does not read as the type that is expected.
var errShape = errors.New("wrong shape")

// scalar decodes a value without parts. Texts take numbers as they are written;
// numbers and booleans take quoted text only when it came from a reference.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string, r rules) {
	r.secret = v.Type() == secretType
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.mismatch(n, path, r, expected(v.Type(), r))
		return
	}
	t := text{value: n.Value, shown: n.Value} // a number or boolean, as it is written
	switch {
	case n.Tag == strTag:
		t = d.expand(n.Value, place(n), path)
	case len(n.Value) > numberMax:
		t.shown = quote(n.Value)
	}
	if t.open {
		fillOpen(v, n.Value)
		return
	}
	if r.secret {
		d.hide(t.value, "[secret]")
	}
	if next := wrongTag(n, v.Type(), t); next != "" {
		d.refuse(n, path, t, v.Type(), r, "", next)
		return
	}
	err := setText(v, t.value)
	switch {
	case errors.Is(err, errShape):
		d.refuse(n, path, t, v.Type(), r, "", "")
	case err != nil:
		d.refuse(n, path, t, v.Type(), r, err.Error(), "")
	default:
		d.bounds(n, v, path, t, r)
	}
}

// refuse reports a scalar. cause is a text of the type itself: it may repeat what
// it was given, so it is left out when that must not be shown.
func (d *decoder) refuse(n *yaml.Node, path string, t text, typ reflect.Type, r rules, cause, next string) {
	found := t.shown
	if r.secret {
		found = "a value"
	}
	want := expected(typ, r)
	if cause != "" && !t.refs && !r.secret && want == "text" {
		want = cause
	}
	if len(r.enum) > 0 && next == "" && !t.refs && !r.secret {
		next = cmp.Or(didYouMean(t.value, r.enum), "use "+oneOf(r.enum))
	}
	d.add(problem{code: messages.CodeDocValue, path: path, at: place(n), what: "found " + found + ", expected " + want, next: next})
}

// wrongTag returns what to do about a scalar that YAML reads as another type.
func wrongTag(n *yaml.Node, typ reflect.Type, t text) (next string) {
	quoted := n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
	textual := typ.Kind() == reflect.String || isText(typ)
	switch {
	case textual && (n.Tag == boolTag || n.Tag == "!!binary"):
		return "put quotes around it if text is meant"
	case !textual && typ != durationType && quoted && !t.refs:
		return "remove the quotes"
	}
	return ""
}

// fillOpen gives a value that is not resolved something that is not empty, so
// that nothing else complains of it.
func fillOpen(v reflect.Value, raw string) {
	if v.Kind() == reflect.String {
		v.SetString(raw)
	} else if v.Type() == secretType {
		_ = setText(v, raw)
	}
}

var decimal = regexp.MustCompile(`^[-+]?[0-9]+$`)

// setText reads s as v's type.
func setText(v reflect.Value, s string) error {
	if v.Type() == durationType {
		n, err := time.ParseDuration(s)
		if err != nil || n < 0 {
			return errShape
		}
		v.SetInt(int64(n))
		return nil
	}
	if u, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return u.UnmarshalText([]byte(s))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return errShape
		}
		v.SetBool(s == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		if err != nil || !decimal.MatchString(s) {
			return errShape
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		if err != nil || !decimal.MatchString(s) {
			return errShape
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		n, err := strconv.ParseFloat(s, v.Type().Bits())
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return errShape
		}
		v.SetFloat(n)
	default:
		panic("config: no document value can be a " + v.Type().String())
	}
	return nil
}

// setDefault applies the default of a tag; several make a list.
func setDefault(v reflect.Value, defaults []string) {
	if v.Kind() == reflect.Slice && !isText(v.Type()) {
		v.Set(reflect.MakeSlice(v.Type(), len(defaults), len(defaults)))
		for i, s := range defaults {
			setDefault(v.Index(i), []string{s})
		}
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if err := setText(v, defaults[0]); err != nil {
		panic(fmt.Sprintf("config: the default %q is no %s", defaults[0], v.Type()))
	}
}

// bounds applies the rules to a value that has the right type.
func (d *decoder) bounds(n *yaml.Node, v reflect.Value, path string, t text, r rules) {
	ok := true
	switch {
	case v.CanInt() && v.Type() != durationType:
		low, hasLow := bound(r.min)
		high, hasHigh := bound(r.max)
		ok = (!hasLow || v.Int() >= low) && (!hasHigh || v.Int() <= high)
	case v.CanUint():
		low, hasLow := bound(r.min)
		high, hasHigh := bound(r.max)
		ok = (!hasLow || v.Uint() >= uint64(max(0, low))) && (!hasHigh || v.Uint() <= uint64(max(0, high)))
	case v.CanFloat():
		ok = insideFloat(v.Float(), r)
	case v.Kind() == reflect.String:
		size := utf8.RuneCountInString(t.value)
		ok = size >= r.lengthMin && (r.lengthMax == 0 || size <= r.lengthMax) && (r.pattern == nil || r.pattern.MatchString(t.value))
	}
	if len(r.enum) > 0 && !slices.Contains(r.enum, t.value) {
		ok = false
	}
	switch {
	case ok:
	case v.Kind() == reflect.String && t.value == "":
		d.add(problem{code: messages.CodeDocMissing, path: path, at: place(n), what: "the value is empty, expected " + expected(v.Type(), r)})
	default:
		d.refuse(n, path, t, v.Type(), r, "", "")
	}
}

func insideFloat(x float64, r rules) bool {
	if low, err := strconv.ParseFloat(r.min, 64); r.min != "" && (err != nil || x < low) {
		return false
	}
	if high, err := strconv.ParseFloat(r.max, 64); r.max != "" && (err != nil || x > high) {
		return false
	}
	return true
}
