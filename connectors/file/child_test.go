package file

// childEnv names what a re-executed test binary does instead of running tests.
const childEnv = "RB_FILE_CHILD"

func runChild(string) int { return 0 }
