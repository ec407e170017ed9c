export const dataset = { length: 3 }
