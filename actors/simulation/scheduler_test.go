package simulation_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"rapidbyte.io/node/actors/flow"
	root "rapidbyte.io/node/actors/node"
	"rapidbyte.io/node/messages"
)

// scheduler decides what happens next: one message of one actor, or one call of a
// connector or of the state store. Nothing else moves a simulated node.
type scheduler struct {
	rng   *rand.Rand
	steps int
	draws int           // epochs drawn and registered, by anybody
	hash  uint64        // of all steps
	wake  chan struct{} // something has arrived

	boxes []*box // in the order of their birth

	mu    sync.Mutex    // guards what follows, and the queues of all boxes: the goroutines of one step
	fresh []*op         // not yet seen by the scheduler
	left  []*op         // whose callers wait no more
	idle  []chan func() // goroutines for turns

	ops       []*op
	canTurn   []*box // of the step
	canHappen []*op
	last      []note // the newest steps
	show      func(string)
}

const notesMax = 120

// note is a step, told only if somebody wants to read it.
type note struct {
	at   time.Duration
	who  string
	what any
}

func (n note) String() string {
	var text string
	switch m := n.what.(type) {
	case string:
		text = m
	case flow.Offer:
		text = "offer " + item(m.Item)
	case messages.Item:
		text = item(m)
	case *actor.Terminated:
		text = "terminated: " + short(m.Who.Id)
	case root.StartPipeline:
		text = "start the pipeline"
	default:
		text = strings.TrimPrefix(fmt.Sprintf("%T %+v", m, m), "*")
	}
	text = strings.ReplaceAll(text, "\n", " | ")
	if len(text) > 220 {
		text = text[:220] + ".."
	}
	return fmt.Sprintf("%12s  %-34s %s", n.at, n.who, text)
}

// item tells an item by its stamp and rows.
func item(m messages.Item) string {
	text := strings.TrimPrefix(fmt.Sprintf("%T %v", m, flow.StampOf(m)), "messages.")
	switch m := m.(type) {
	case messages.Batch:
		text += fmt.Sprintf(" %d rows", m.Rows.Len())
	case messages.Rejected:
		text += fmt.Sprintf(" %d rows", m.Rows.Len())
	case messages.Barrier:
		text += fmt.Sprintf(" kind %d at %s", m.Kind, m.Position.At.Value)
	case messages.SchemaChange, messages.Truncate:
	}
	return text
}

var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // a bubble begins here

func newScheduler(seed uint64) *scheduler {
	return &scheduler{rng: rand.New(rand.NewPCG(seed, 0x5eed)), wake: make(chan struct{}, 1)}
}

// mark adds a step to the trace.
func (s *scheduler) mark(who string, what any) {
	n := note{at: time.Since(epoch), who: who, what: what}
	s.add(who)
	if text, ok := what.(string); ok {
		s.add(text)
	} else {
		s.add(reflect.TypeOf(what).String())
	}
	s.hash ^= uint64(n.at)
	if len(s.last) >= 2*notesMax {
		s.last = append(s.last[:0], s.last[notesMax:]...)
	}
	s.last = append(s.last, n)
	if s.show != nil {
		s.show(n.String())
	}
}

func (s *scheduler) add(text string) {
	for i := range len(text) {
		s.hash = (s.hash ^ uint64(text[i])) * 0x100000001b3
	}
}

// story returns the newest steps.
func (s *scheduler) story() string {
	var b strings.Builder
	for _, n := range s.last[max(0, len(s.last)-notesMax):] {
		b.WriteString(n.String() + "\n")
	}
	return b.String()
}

func (s *scheduler) chance(p float64) bool { return p > 0 && s.rng.Float64() < p }

func (s *scheduler) arrived() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// box is a mailbox that only keeps what it is given. It implements actor.Mailbox.
type box struct {
	s         *scheduler
	node      *node
	id        string // of the actor
	name      string // the same, short
	lazy      bool   // is often passed over
	invoker   actor.MessageInvoker
	system    []any
	user      []any
	suspended bool
	busy      bool // a turn has not come to its end
	over      bool // the actor has terminated
	boom      boom // what becomes of the next turn
}

// boom says when the turn panics.
type boom uint8

const (
	boomNot boom = iota
	boomBefore
	boomBehind
)

// PostUserMessage implements actor.Mailbox.
func (b *box) PostUserMessage(m any) { b.post(&b.user, m) }

// PostSystemMessage implements actor.Mailbox.
func (b *box) PostSystemMessage(m any) { b.post(&b.system, m) }

func (b *box) post(queue *[]any, m any) {
	b.s.mu.Lock()
	*queue = append(*queue, m)
	b.s.mu.Unlock()
	b.s.arrived()
}

// RegisterHandlers implements actor.Mailbox.
func (b *box) RegisterHandlers(i actor.MessageInvoker, _ actor.Dispatcher) { b.invoker = i }

// Start implements actor.Mailbox.
func (b *box) Start() {}

// UserMessageCount implements actor.Mailbox.
func (b *box) UserMessageCount() int { return len(b.user) }

func (b *box) ready() bool {
	return !b.busy && !b.over && !b.node.frozen && (len(b.system) > 0 || !b.suspended && len(b.user) > 0)
}

// next takes a message; system messages come first.
func (b *box) next() (m any, system bool) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if len(b.system) > 0 {
		m, b.system = b.system[0], b.system[1:]
		return m, true
	}
	m, b.user = b.user[0], b.user[1:]
	return m, false
}

// handle is one turn of the actor.
func (b *box) handle(m any, system bool) {
	defer func() {
		if r := recover(); r != nil {
			b.invoker.EscalateFailure(r, m)
		}
	}()
	switch m.(type) {
	case *actor.SuspendMailbox:
		b.suspended = true
	case *actor.ResumeMailbox:
		b.suspended = false
	default:
		if system {
			b.invoker.InvokeSystemMessage(m)
			return
		}
		b.invoker.InvokeUserMessage(m)
	}
}

// turn lets an actor handle one message, on a goroutine of its own: an actor that
// stops waits for its worker, whose last calls others have to let pass.
func (s *scheduler) turn(b *box) {
	m, system := b.next()
	what := m
	if env, ok := m.(*actor.MessageEnvelope); ok {
		what = env.Message
	}
	s.mark(b.name, what)
	if !system && b.boomable() && s.chance(b.node.w.knobs.panics) {
		b.node.panics = true
		b.boom = boom(1 + s.rng.IntN(2))
		b.node.w.note("panic in an actor")
		s.mark(b.name, "panics")
	}
	b.busy = true
	s.spin(func() {
		b.handle(m, system)
		alive := true
		if system {
			_, alive = b.node.w.sys.ProcessRegistry.GetLocal(b.id)
		}
		s.mu.Lock()
		b.over, b.busy = !alive, false
		s.mu.Unlock()
	})
	s.settle()
}

// spin runs a turn on a goroutine that waits for one: their stacks have grown already.
func (s *scheduler) spin(turn func()) {
	s.mu.Lock()
	var turns chan func()
	if n := len(s.idle); n > 0 {
		turns, s.idle = s.idle[n-1], s.idle[:n-1]
	}
	s.mu.Unlock()
	if turns == nil {
		turns = make(chan func())
		go func() {
			for turn := range turns {
				turn()
				s.mu.Lock()
				s.idle = append(s.idle, turns)
				s.mu.Unlock()
			}
		}()
	}
	turns <- turn
}

// end lets the goroutines of turns go.
func (s *scheduler) end() {
	for _, turns := range s.idle {
		close(turns)
	}
}

// settle waits until every goroutine waits.
func (s *scheduler) settle() { synctest.Wait() }

// boomable reports whether a panic of the actor is simulated.
func (b *box) boomable() bool {
	return !b.node.dead && !b.node.w.calm && (strings.Contains(b.id, "/task-") || strings.Contains(b.id, "/run-"))
}

// inhabit makes the actors of a node receive through boxes, the root and all below it.
func (s *scheduler) inhabit(n *node, props *actor.Props, id string) *actor.Props {
	b := &box{s: s, node: n, id: id, name: short(id), lazy: s.chance(n.w.knobs.lazy)}
	s.boxes = append(s.boxes, b)
	return props.Configure(
		actor.WithMailbox(func() actor.Mailbox { return b }),
		actor.WithReceiverMiddleware(b.explode),
		actor.WithSpawnMiddleware(func(next actor.SpawnFunc) actor.SpawnFunc {
			return func(sys *actor.ActorSystem, id string, props *actor.Props, parent actor.SpawnerContext) (*actor.PID, error) {
				return next(sys, id, s.inhabit(n, props, id), parent)
			}
		}),
	)
}

// explode panics inside the actor's turn, on order.
func (b *box) explode(next actor.ReceiverFunc) actor.ReceiverFunc {
	return func(c actor.ReceiverContext, env *actor.MessageEnvelope) {
		boom := b.boom
		b.boom = boomNot
		if boom == boomBefore {
			panic("simulated, before the message was handled")
		}
		next(c, env)
		if boom == boomBehind {
			panic("simulated, behind the message")
		}
	}
}

// short names an actor by its node and itself.
func short(id string) string {
	first, _, _ := strings.Cut(id, "/")
	return first + "/" + id[strings.LastIndexByte(id, '/')+1:]
}

// fate is what becomes of a call.
type fate uint8

const (
	fateDone  fate = iota
	fateFails      // transient, nothing happened
	fateLost       // it happened, the reply is lost
	fateNever      // a commit: it did not happen, and nobody knows
	fateLate       // a commit: it may happen later, and nobody knows
	fatePanic      // the connector panics
)

var fateNames = [...]string{"done", "fails", "done, reply lost", "not done, reply lost", "still under way, connection lost", "panics"}

// op is a call that waits for the scheduler.
type op struct {
	node  *node
	name  string
	fates []fate             // besides fateDone
	store bool               // of the state store, which has troubles of its own
	run   func(f fate) error // by the scheduler, while the caller waits
	gone  func()             // by the scheduler, when the caller has given up before run
	after time.Duration      // since when: not before
	ran   bool               // the server has done it, the reply waits
	fate  fate
	err   error
	done  chan struct{}
}

// call waits until the scheduler lets the operation happen. The caller that gives up
// does not know whether it will.
func (n *node) call(ctx context.Context, o *op) error {
	s := n.w.s
	o.node, o.done = n, make(chan struct{})
	s.mu.Lock()
	if n.dead {
		s.mu.Unlock()
		return errDead
	}
	s.fresh = append(s.fresh, o)
	s.mu.Unlock()
	s.arrived()
	select {
	case <-o.done:
		if o.fate == fatePanic {
			panic("simulated, in a connector")
		}
		return o.err
	case <-ctx.Done():
		s.mu.Lock()
		s.left = append(s.left, o)
		s.mu.Unlock()
		return context.Cause(ctx)
	}
}

var errDead = fmt.Errorf("the node is dead")

func byName(a, b *op) int {
	return cmp.Or(cmp.Compare(a.node.id, b.node.id), cmp.Compare(a.name, b.name))
}

// admit takes over what the goroutines of the last step have begun and given up.
func (s *scheduler) admit() {
	s.mu.Lock()
	fresh, left := s.fresh, s.left
	s.fresh, s.left = nil, nil
	s.boxes = slices.DeleteFunc(s.boxes, func(b *box) bool { return b.over })
	s.mu.Unlock()
	slices.SortFunc(fresh, byName)
	slices.SortFunc(left, byName)
	for _, o := range fresh {
		o.after = time.Since(epoch) + o.node.w.delay()
	}
	s.ops = append(s.ops, fresh...)
	for _, o := range left {
		s.ops = slices.DeleteFunc(s.ops, func(p *op) bool { return p == o })
		s.abandon(o)
	}
}

// abandon decides about a call that nobody waits for any more.
func (s *scheduler) abandon(o *op) {
	if o.gone != nil && !o.ran {
		s.mark(o.node.name, "given up: "+o.name)
		o.gone()
	}
}

// release lets an operation happen, and its caller go on.
func (s *scheduler) release(o *op) {
	s.ops = slices.DeleteFunc(s.ops, func(p *op) bool { return p == o })
	s.perform(o)
	close(o.done)
	s.settle()
}

// perform is the server's side.
func (s *scheduler) perform(o *op) {
	if o.ran {
		return
	}
	o.ran, o.fate = true, o.node.w.fateOf(o)
	if o.fate != fatePanic {
		o.err = o.run(o.fate)
	}
	text := o.name
	if o.fate != fateDone {
		text += ": " + fateNames[o.fate]
	}
	if o.err != nil {
		text += ": " + o.err.Error()
	}
	s.mark(o.node.name, text)
}

// step lets one thing happen; false: there is nothing to do before time passes.
func (s *scheduler) step() bool {
	time.Sleep(time.Duration(1 + s.rng.IntN(100_000))) // work takes time, and no two timers are armed at once
	s.admit()
	boxes, ops := s.readyBoxes(), s.readyOps()
	if len(boxes)+len(ops) == 0 {
		return false
	}
	s.steps++
	k := s.rng.IntN(len(boxes) + len(ops))
	switch {
	case k >= len(boxes):
		s.release(ops[k-len(boxes)])
	case boxes[k].lazy && len(boxes)+len(ops) > 1 && s.chance(0.9): // passed over
	default:
		s.turn(boxes[k])
	}
	return true
}

// readyBoxes returns the actors that can handle a message.
func (s *scheduler) readyBoxes() []*box {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.canTurn = s.canTurn[:0]
	for _, b := range s.boxes {
		if b.ready() {
			s.canTurn = append(s.canTurn, b)
		}
	}
	return s.canTurn
}

// readyOps returns the calls that can happen.
func (s *scheduler) readyOps() []*op {
	now := time.Since(epoch)
	s.canHappen = s.canHappen[:0]
	for _, o := range s.ops {
		if !o.node.frozen && o.after <= now {
			s.canHappen = append(s.canHappen, o)
		}
	}
	return s.canHappen
}

const idleMax = 5 * time.Minute

// wait lets time pass until something arrives; false: nothing does.
func (s *scheduler) wait() bool {
	select {
	case <-s.wake:
	default:
	}
	until, due := idleMax, false
	for _, o := range s.ops {
		if !o.node.frozen {
			until, due = min(until, max(o.after-time.Since(epoch), 1)), true
		}
	}
	timer := time.NewTimer(until)
	defer timer.Stop()
	select {
	case <-s.wake:
		s.settle()
		return true
	case <-timer.C:
		s.settle()
		return due
	}
}
