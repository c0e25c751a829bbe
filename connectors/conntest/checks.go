package conntest

// SourceChecks lists the source checks in the order in which they run.
func SourceChecks() []Check[SourceFactory] {
	return []Check[SourceFactory]{}
}

// DestinationChecks lists the destination checks in the order in which they run.
func DestinationChecks() []Check[DestinationFactory] {
	return []Check[DestinationFactory]{}
}

// TransformChecks lists the transform checks in the order in which they run.
func TransformChecks() []Check[TransformFactory] {
	return []Check[TransformFactory]{}
}
