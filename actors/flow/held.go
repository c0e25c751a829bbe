package flow

import (
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Held asks whether the pipeline is still ours before op makes something visible. hold may
// be nil: it is ours for as long as we live.
func Held(hold func() error, op string) error {
	if hold == nil {
		return nil
	}
	err := hold()
	if err == nil {
		return nil
	}
	return &connectors.Error{Op: op, Kind: connectors.KindFenced, Commit: connectors.CommitNone, Code: messages.CodeFenced, Err: err}
}
