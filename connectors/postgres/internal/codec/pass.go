package codec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// rawFormat begins the name of the format of rows that are not decoded.
const rawFormat = "pgcopy-binary/"

// RawFormat returns the name of the format of rows of binary COPY with these columns. Two
// ends that give it the same name write and read every field alike. Where a column has no
// such form, the format is empty, and why says which. endless says that the server that the
// rows come from knows infinite intervals: one that does not takes them for finite.
func RawFormat(cols []Column, endless bool) (format, why string) {
	h := sha256.New()
	for _, c := range cols {
		id, why := passID(c.Type)
		if why != "" {
			return "", fmt.Sprintf("column %s of type %s %s", c.Name, c.Type.SQL, why)
		}
		if endless && c.Type.HasInterval() {
			id += " or endless"
		}
		fmt.Fprintf(h, "%q %s, ", c.Name, id)
	}
	return rawFormat + hex.EncodeToString(h.Sum(nil)[:16]), ""
}

// RawDiffers says why the rows of one column cannot pass into the other as they are; empty
// when they can.
func RawDiffers(from, to *Type) string {
	a, why := passID(from)
	if why != "" {
		return why
	}
	if b, why := passID(to); why != "" || a != b {
		return "is " + to.SQL + " in the table"
	}
	return ""
}

// passID identifies the binary form of t and what the server does with a value of it: a
// modifier may round or refuse, a domain checks. What a server numbers by itself, such as
// the elements of an array of enums, must not be inside of a value.
func passID(t *Type) (id, why string) {
	if t.form() == formOther {
		return "", "travels as text"
	}
	switch t.Kind {
	case KindDomain:
		base, why := passID(t.Base)
		return fmt.Sprintf("domain %q of %s", t.Name, base), why
	case KindEnum: // a label is its text
		return fmt.Sprintf("enum %q", t.Name), ""
	case KindArray:
		if t.Elem.Kind != KindBase {
			return "", "has elements that each server numbers in its own way"
		}
		elem, why := passID(t.Elem)
		return "array of " + elem, why
	default:
		return fmt.Sprintf("%s %d", t.Name, t.Mod), ""
	}
}

// HasNumeric reports whether a value of t holds a number of any size: servers before
// version 14 do not know an infinite one.
func (t *Type) HasNumeric() bool { return t.has(formNumeric) }

// HasInterval reports whether a value of t holds an interval: servers before version 17 do
// not know an infinite one.
func (t *Type) HasInterval() bool { return t.has(formInterval) }

// has reports whether t, or what it is an array of, has the form f.
func (t *Type) has(f form) bool {
	r := t.root()
	return r.form() == f || r.Kind == KindArray && r.Elem != nil && r.Elem.has(f)
}
