/** Right calls of operators for which chance finds none, by name without `aten::`. */
import type { Call } from './operators.js'

export const samples: Record<string, Partial<Call>[]> = {}
