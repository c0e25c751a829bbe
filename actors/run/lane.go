package run

import (
	"context"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Lane is how the rows of a load travel, as far as it is known.
type Lane struct {
	Lane   messages.Lane
	Raw    string // format, of LanePassthrough
	Reason string // of LaneArrow, to stand behind "because"; empty: the two ends have no other
}

// String says it to a person.
func (l Lane) String() string {
	switch {
	case l.Lane == messages.LanePassthrough:
		name, _, _ := strings.Cut(l.Raw, "/") // behind it: what tells its columns apart
		return "rows pass through as they are (" + name + ")"
	case l.Reason != "":
		return "rows travel as Arrow, because " + l.Reason
	}
	return "rows travel as Arrow"
}

// Known reports whether both ends have another lane than Arrow, taken or not.
func (l Lane) Known() bool { return l.Raw != "" || l.Reason != "" }

// offer notes with each part of l whether its rows may pass through. Positions are the
// same in both lanes, so that a load that goes on may change it.
func (s Spec) offer(l *connectors.Load) Lane {
	lane := s.offered(*l)
	l.Parts = slices.Clone(l.Parts)
	for i := range l.Parts {
		l.Parts[i].Raw = lane.Raw
	}
	return lane
}

// offered is the lane as far as the source and the document decide about it.
func (s Spec) offered(l connectors.Load) Lane {
	reader, reads := s.Source.(connectors.RawReader)
	if _, writes := s.Destination.(connectors.RawWriter); !reads || !writes {
		return Lane{Lane: messages.LaneArrow}
	}
	if s.Resources.Decode {
		return Lane{Lane: messages.LaneArrow, Reason: "resources.passthrough is off"}
	}
	for _, t := range s.Transforms {
		if slices.ContainsFunc(l.Streams, func(sp connectors.StreamPlan) bool { return t.appliesTo(sp.Stream) }) {
			return Lane{Lane: messages.LaneArrow, Reason: "a transform needs the values"}
		}
	}
	if len(l.Streams) != 1 {
		return Lane{Lane: messages.LaneArrow, Reason: "its tasks read several streams"}
	}
	format, why := reader.RawFormat(l)
	if format == "" {
		return Lane{Lane: messages.LaneArrow, Reason: why}
	}
	return Lane{Lane: messages.LanePassthrough, Raw: format}
}

// Lanes tells how the rows of each load of Plan would travel. It may ask the destination
// and changes nothing.
func (s Spec) Lanes(ctx context.Context, loads []connectors.Load) ([]Lane, error) {
	out := make([]Lane, len(loads))
	var ask []connectors.Load
	var of []int
	for i, l := range loads {
		if out[i] = s.offered(l); out[i].Raw != "" {
			ask, of = append(ask, l), append(of, i)
		}
	}
	w, ok := s.Destination.(connectors.RawWriter)
	if !ok || len(ask) == 0 {
		return out, nil
	}
	whys, err := w.AcceptsRaw(ctx, ask)
	for i, why := range whys {
		if why != "" {
			out[of[i]] = Lane{Lane: messages.LaneArrow, Reason: why}
		}
	}
	return out, err
}
