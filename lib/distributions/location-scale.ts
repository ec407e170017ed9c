import type { Tensor } from '../tensor/index.js'
import { elementwise } from './arguments.js'
import { type Constraint, positive, real } from './constraints.js'
import { Distribution } from './distribution.js'

/** A distribution over numbers with parameters `loc` and `scale`. */
export abstract class LocationScale extends Distribution {
  constructor(where: string, args: readonly unknown[]) {
    super(...elementwise(where, ['loc', 'scale'], args))
  }

  get loc(): Tensor {
    return this.parameter('loc')
  }

  get scale(): Tensor {
    return this.parameter('scale')
  }

  override get hasRsample(): boolean {
    return true
  }

  override get argConstraints(): Record<string, Constraint> {
    return { loc: real, scale: positive }
  }

  override get support(): Constraint {
    return real
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  /** Return (value - loc) / scale. */
  protected standardized(value: Tensor): Tensor {
    return value.sub(this.loc).div(this.scale)
  }
}
