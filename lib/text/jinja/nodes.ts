/** Position in a template, counted from 1. */
export interface Place {
  line: number
  column: number
}

export interface Arguments {
  args: Expression[]
  kwargs: [string, Expression][]
  dynArgs?: Expression
  dynKwargs?: Expression
}

export type Name = Place & { type: 'name'; name: string; store: boolean }
export type Call = Place & { type: 'call'; callee: Expression } & Arguments
export type Filter = Place & { type: 'filter'; value: Expression | null; name: string } & Arguments
export type Slice = Place & { type: 'slice'; start?: Expression; stop?: Expression; step?: Expression }

export type Expression =
  | (Place & { type: 'const'; value: null | boolean | bigint | number | string })
  | Name
  | (Place & { type: 'attribute'; namespace: string; name: string })
  | (Place & { type: 'tuple' | 'list' | 'concat'; items: Expression[] })
  | (Place & { type: 'dict'; items: [Expression, Expression][] })
  | (Place & { type: 'condition'; test: Expression; value: Expression; otherwise: Expression | undefined })
  | (Place & { type: 'binary'; operator: string; left: Expression; right: Expression })
  | (Place & { type: 'unary'; operator: string; value: Expression })
  | (Place & { type: 'compare'; first: Expression; rest: [string, Expression][] })
  | (Place & { type: 'getattr'; value: Expression; name: string })
  | (Place & { type: 'getitem'; value: Expression; index: Expression })
  | Slice
  | Call
  | Filter
  | (Place & { type: 'test'; value: Expression; name: string } & Arguments)

export interface MacroNode extends Place {
  type: 'macro'
  name: string | null
  parameters: string[]
  /** Defaults of the last parameters. */
  defaults: Expression[]
  body: Statement[]
  /** Special names that the body reads without defining them. */
  takes: { caller: boolean; kwargs: boolean; varargs: boolean }
}

export type For = Place & {
  type: 'for'
  target: Expression
  items: Expression
  body: Statement[]
  otherwise: Statement[]
  test: Expression | undefined
  recursive: boolean
}

export type Statement =
  | (Place & { type: 'data'; text: string })
  | (Place & { type: 'output'; values: Expression[] })
  | (Place & { type: 'if'; branches: [Expression, Statement[]][]; otherwise: Statement[] })
  | For
  | (Place & { type: 'set'; target: Expression; value: Expression })
  | (Place & { type: 'setblock'; target: Expression; filter: Filter | null; body: Statement[] })
  | (Place & { type: 'with'; targets: Expression[]; values: Expression[]; body: Statement[] })
  | MacroNode
  | (Place & { type: 'callblock'; call: Call; caller: MacroNode })
  | (Place & { type: 'generation'; body: MacroNode })
  | (Place & { type: 'filterblock'; filter: Filter; body: Statement[] })
  | (Place & { type: 'block'; name: string; scoped: boolean; required: boolean; body: Statement[] })
  | (Place & { type: 'break' | 'continue' })
  | (Place & { type: 'absent'; tag: string })

export interface Template {
  body: Statement[]
  blocks: Map<string, Statement[]>
}
