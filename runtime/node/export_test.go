package node

import "github.com/asynkron/protoactor-go/actor"

// Tell sends m to the actor with the given path below the root.
func (n *Node) Tell(path string, m any) {
	n.sys.Root.Send(actor.NewPID(n.sys.Address(), n.root.Id+path), m)
}

// WritePolicy is what Build gives a destination.
var WritePolicy = writePolicy
