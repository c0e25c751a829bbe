package connectors

import (
	"context"
	"errors"

	"rapidbyte.io/node/messages"
)

const failureTextMax = 4 << 10 // bytes of one text of a Failure

// FailureOf flattens err for the user. at says where the engine was; what err
// itself knows of its place wins. The first cause stays visible in Why.
func FailureOf(err error, at messages.Place) messages.Failure {
	if f, ok := errors.AsType[messages.Failure](err); ok {
		f.Where = f.Where.Or(at)
		return f
	}
	f := messages.Failure{Kind: string(KindOf(err)), Where: at}
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok:
		f.Code, f.Commit, f.What, f.Next = e.Code, string(e.Commit), e.Op, e.Next
		f.Where = e.Place.Or(at)
		if e.Err != nil {
			f.Why = e.Err.Error()
		}
	case KindOf(err) == KindFenced:
		f.What, f.Why = "another owner has taken over", err.Error()
	case errors.Is(err, context.Canceled):
		f.Code, f.What, f.Why = messages.CodeCancelled, "cancelled", err.Error()
	default:
		f.What, f.Why = "unexpected error", err.Error()
	}
	if f.Code == "" {
		f.Code = defaultCode(Kind(f.Kind), at.Stage)
	}
	if f.Next == "" {
		if info, ok := f.Code.Info(); ok {
			f.Next = info.Next
		}
	}
	f.What, f.Why = clip(f.What), clip(f.Why)
	return f
}

// defaultCode names an error that its connector did not name.
func defaultCode(k Kind, stage string) messages.Code {
	switch k {
	case KindFenced:
		return messages.CodeFenced
	case KindData:
		return messages.CodeRowBroken
	case KindSchema:
		return messages.CodeSchemaType
	case KindGap, KindScanLost:
		return messages.CodeSourceGap
	case KindInternal:
		return messages.CodeInternal
	case KindTransient, KindConfig:
	}
	switch stage {
	case StageDestination:
		return messages.CodeDest
	case StageCheckpoint:
		return messages.CodeState
	}
	return messages.CodeSource
}

// The names of the stages of a task, for Place.Stage.
const (
	StageSource      = "source"
	StageTransform   = "transform"
	StageDestination = "destination"
	StageCheckpoint  = "checkpoint"
	StageRun         = "run"
)

// clip bounds a text and escapes what could forge a log line.
func clip(s string) string {
	out := make([]rune, 0, min(len(s), failureTextMax))
	for _, r := range s {
		if len(out) >= failureTextMax {
			return string(out) + " ..."
		}
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			r = '\uFFFD'
		}
		out = append(out, r)
	}
	return string(out)
}
