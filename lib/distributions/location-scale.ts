import type { Tensor } from '../tensor/index.js'
import { elementwise } from './arguments.js'
import { positive, real } from './constraints.js'
import { Distribution } from './distribution.js'

/** A distribution over numbers with parameters `loc` and `scale`. */
export abstract class LocationScale extends Distribution {
  declare readonly loc: Tensor
  declare readonly scale: Tensor

  static {
    LocationScale.define({ support: real, hasRsample: true }, { loc: real, scale: positive })
  }

  constructor(where: string, args: readonly unknown[]) {
    super(...elementwise(where, ['loc', 'scale'], args))
  }

  protected override computeMode(): Tensor {
    return this.loc
  }

  /** Return (value - loc) / scale. */
  protected standardized(value: Tensor): Tensor {
    return value.sub(this.loc).div(this.scale)
  }
}
