def report(told): return ""
