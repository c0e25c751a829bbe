package messages

import (
	"fmt"
	"strings"
)

// Place says where something went wrong. Empty fields are unknown.
type Place struct {
	Pipeline PipelineID `json:"pipeline,omitempty"`
	Stream   StreamID   `json:"stream,omitempty"`
	Part     PartID     `json:"task,omitempty"`
	Stage    string     `json:"stage,omitempty"`    // source, transform, destination, checkpoint, run
	File     string     `json:"file,omitempty"`     // path as the user wrote it
	Line     int        `json:"line,omitempty"`     // from 1
	Column   int        `json:"column,omitempty"`   // from 1; of File
	Row      int64      `json:"row,omitempty"`      // from 1; of the file or the stream
	Field    string     `json:"field,omitempty"`    // column of the data, or key path of the document
	Position string     `json:"position,omitempty"` // cursor, as text
}

// String joins what is known, widest first.
func (p Place) String() string {
	var b []string
	add := func(name, v string) {
		if v != "" {
			b = append(b, name+" "+v)
		}
	}
	if p.File != "" && p.Line > 0 {
		b = append(b, fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column))
	}
	add("pipeline", string(p.Pipeline))
	add("stream", string(p.Stream))
	if string(p.Part) != string(p.Stream) {
		add("task", string(p.Part))
	}
	add("stage", p.Stage)
	if p.File != "" && p.Line == 0 {
		add("file", p.File)
	}
	if p.Row > 0 {
		b = append(b, fmt.Sprintf("row %d", p.Row))
	}
	add("field", p.Field)
	add("position", p.Position)
	return strings.Join(b, ", ")
}

// Or fills what p leaves empty from q.
func (p Place) Or(q Place) Place {
	or := func(a *string, b string) {
		if *a == "" {
			*a = b
		}
	}
	if p.Pipeline == "" {
		p.Pipeline = q.Pipeline
	}
	if p.Stream == "" {
		p.Stream = q.Stream
	}
	if p.Part == "" {
		p.Part = q.Part
	}
	or(&p.Stage, q.Stage)
	or(&p.Field, q.Field)
	or(&p.Position, q.Position)
	if p.File == "" {
		p.File, p.Line, p.Column = q.File, q.Line, q.Column
	}
	if p.Row == 0 {
		p.Row = q.Row
	}
	return p
}

// Failure is an error on its way to the user, flattened so that it can cross a
// node. Texts hold no secrets and at most 4 KiB.
type Failure struct {
	Code   Code   `json:"code"`
	Kind   string `json:"kind"`             // of connectors.Error
	Commit string `json:"commit,omitempty"` // of connectors.Error
	What   string `json:"what"`             // what happened, one line
	Where  Place  `json:"where,omitzero"`
	Why    string `json:"why,omitempty"`  // the cause, as the failing system said it
	Next   string `json:"next,omitempty"` // what to do
}

// Error implements error, so that a Failure can stand where an error does.
func (f Failure) Error() string {
	s := string(f.Code) + " " + f.What
	if w := f.Where.String(); w != "" {
		s += " (" + w + ")"
	}
	if f.Why != "" {
		s += ": " + f.Why
	}
	return s
}

// IsZero reports whether f says nothing.
func (f Failure) IsZero() bool { return f.Code == "" && f.What == "" }
