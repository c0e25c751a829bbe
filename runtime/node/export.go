package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// exportFormat is the version of an exported state. Another one is refused.
const exportFormat = 1

// Exported is the whole state of a pipeline, to be carried to another state store. It
// holds positions, which are values of cursor columns, and no other secrets.
type Exported struct {
	Format   int                 `json:"rapidbyte_state"`
	Pipeline messages.PipelineID `json:"pipeline"`
	Made     time.Time           `json:"exported_at"`
	Store    string              `json:"state_store"` // identity of where it was
	Epoch    messages.Epoch      `json:"epoch"`
	Receipts []messages.Receipt  `json:"receipts"`
	Finished []messages.LoadID   `json:"finished"`
	Orders   []statestore.Order  `json:"orders"`
	Kept     []messages.Receipt  `json:"kept_checkpoints"` // oldest first
	Runs     []statestore.Run    `json:"runs"`             // newest first
	Sum      string              `json:"sha256"`           // of the rest
}

// sum returns the checksum of e without its own.
func (e Exported) sum() (string, error) {
	e.Sum = ""
	text, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Encode returns e as indented JSON with its checksum.
func (e Exported) Encode() ([]byte, error) {
	var err error
	if e.Sum, err = e.sum(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(e, "", "  ")
	return append(text, '\n'), err
}

// DecodeState reads what Encode wrote. Its error says why it cannot be relied on; older
// and newer formats are refused by name.
func DecodeState(text []byte) (Exported, error) {
	var e Exported
	var head struct {
		Format *int `json:"rapidbyte_state"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return e, fmt.Errorf("it is no JSON: %w", err)
	}
	switch {
	case head.Format == nil:
		return e, fmt.Errorf("it is no exported state")
	case *head.Format != exportFormat:
		return e, fmt.Errorf("it has format %d, this program knows format %d", *head.Format, exportFormat)
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return e, fmt.Errorf("it cannot be read: %w", err)
	}
	sum, err := e.sum()
	if err != nil || sum != e.Sum {
		return e, fmt.Errorf("its checksum does not hold: it was changed or cut off")
	}
	return e, nil
}

// Export returns the whole state.
func (l *Ledger) Export(ctx context.Context) (Exported, error) {
	if l.store == nil {
		return Exported{}, l.ready()
	}
	e := Exported{
		Format: exportFormat, Pipeline: l.doc.Pipeline, Made: l.now().UTC(), Store: l.store.Identity(), Epoch: l.state.Epoch,
		Receipts: append([]messages.Receipt{}, l.state.Receipts...), Finished: append([]messages.LoadID{}, l.state.Finished...),
		Orders: append([]statestore.Order{}, l.state.Orders...), Kept: []messages.Receipt{}, Runs: []statestore.Run{},
	}
	for _, r := range l.state.Receipts {
		kept, err := l.store.History(ctx, l.doc.Pipeline, r.Part)
		if err != nil {
			return e, l.storeFailure(err)
		}
		for _, k := range slices.Backward(kept) {
			e.Kept = append(e.Kept, k.Receipt)
		}
	}
	runs, err := l.store.Runs(ctx, l.doc.Pipeline, statestore.RunsKept)
	if err != nil {
		return e, l.storeFailure(err)
	}
	e.Runs = append(e.Runs, runs...)
	return e, nil
}

// Import puts an exported state into the store under a fresh epoch, and makes the store
// the owner at the destination: the one that was exported from is fenced. What is there
// already is replaced, if force says so. The next run compares with the destination, as
// always. Of kept checkpoints the last of each epoch is taken over, as of now.
func (l *Ledger) Import(ctx context.Context, e Exported, force bool) error {
	if e.Pipeline != l.doc.Pipeline {
		return l.refuse("", fmt.Sprintf("the state was exported from pipeline %q", e.Pipeline), "Import it for that pipeline.")
	}
	if s := l.state; !force && (len(s.Receipts) > 0 || len(s.Finished) > 0 || s.Run.ID != "") {
		return l.refuse("", fmt.Sprintf("the state store has state of the pipeline already: %d receipts, %d finished loads", len(s.Receipts), len(s.Finished)),
			"Add `--force` to replace it.")
	}
	_, epoch, err := takeOver(ctx, l.doc.Pipeline, l.dst, l.store, e.Epoch, 0)
	if err != nil {
		return err
	}
	l.epoch = epoch
	known, err := l.store.Load(ctx, l.doc.Pipeline)
	if err != nil {
		return l.storeFailure(err)
	}
	u := statestore.Update{Receipts: e.Receipts, Finished: e.Finished, Orders: e.Orders}
	var forget []string
	for _, r := range slices.Concat(known.Receipts, e.Receipts) {
		forget = append(forget, r.Load)
	}
	for _, id := range slices.Concat(known.Finished, e.Finished) {
		forget = append(forget, id.Name)
	}
	for _, o := range known.Orders {
		forget = append(forget, o.Load.Name)
	}
	slices.Sort(forget)
	if err := l.save(ctx, statestore.Update{Forget: slices.Compact(forget)}); err != nil {
		return err
	}
	for _, step := range e.history() { // a crash in between leaves a state behind the destination, which is repaired
		if err := l.save(ctx, statestore.Update{Receipts: step}); err != nil {
			return err
		}
	}
	runs := e.Runs
	if len(runs) > 0 { // the newest, in the same step: if it is unfinished it goes on
		u.Run = &runs[0]
		runs = runs[1:]
	}
	if err := l.save(ctx, u); err != nil {
		return err
	}
	for _, r := range slices.Backward(runs) {
		if err := l.save(ctx, statestore.Update{Run: &r}); err != nil {
			return err
		}
	}
	l.state, err = l.store.Load(ctx, l.doc.Pipeline)
	if err != nil {
		return l.storeFailure(err)
	}
	return nil
}

// history returns the kept checkpoints in the order in which they were saved: one of each
// part at a time.
func (e Exported) history() [][]messages.Receipt {
	var steps [][]messages.Receipt
	seen := map[messages.PartID]int{}
	for _, r := range e.Kept {
		n := seen[r.Part]
		if seen[r.Part]++; n == len(steps) {
			steps = append(steps, nil)
		}
		steps[n] = append(steps[n], r)
	}
	return steps
}

// UnreadableState says why the file of an import is refused.
func UnreadableState(p messages.PipelineID, file string, err error) error {
	return messages.Failure{
		Code: messages.CodeStateForeign, Kind: string(connectors.KindConfig), What: "the exported state cannot be imported",
		Where: messages.Place{Pipeline: p, File: file}, Why: err.Error(), Next: "Export it again with " + messages.Command("state", "export", messages.Document, "FILE"),
	}
}
