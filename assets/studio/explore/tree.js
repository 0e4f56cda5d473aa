// @ts-check
/** The tree of futures: where its nodes stand, which are gone and why, and what they are called. */

/**
 * A chunk of one future, as the server tells it.
 * @typedef {object} TreeNode
 * @property {number} parent number of the node before, -1 for none
 * @property {number} depth chunks up to this one
 * @property {string} move what it does otherwise than the plain stream
 * @property {number} noise its branch
 * @property {string[]} changes as storyboard lines without their number
 * @property {number} reward
 * @property {boolean} predicted whether the reward is what a head predicted, and nobody measured it
 * @property {Record<string, number>} parts of the reward
 * @property {number} score
 * @property {number} bytes of the cache that its chunk holds
 * @property {number} cluster of those of its depth that look alike
 * @property {string} why it was abandoned, "" where it was not
 * @property {boolean} decided whether it is on the path that was chosen
 */

/** @param {TreeNode[]} nodes @param {number} number @returns {number[]} the nodes from the first chunk to this one */
export function lineage(nodes, number) {
  const path = [];
  for (let at = number; at >= 0; at = nodes[at].parent) path.unshift(at);
  return path;
}

/** @param {TreeNode[]} nodes @returns {number[][]} the children of every node */
export function childrenOf(nodes) {
  /** @type {number[][]} */
  const children = nodes.map(() => []);
  nodes.forEach((node, number) => {
    if (node.parent >= 0) children[node.parent].push(number);
  });
  return children;
}

/**
 * @param {TreeNode[]} nodes
 * @returns {{ row: number[], rows: number }} the row of every node: each leaf has one, parents are amid their children
 */
export function layout(nodes) {
  const children = childrenOf(nodes);
  const row = nodes.map(() => 0);
  let rows = 0;
  /** @param {number} number */
  const place = (number) => {
    for (const child of children[number]) place(child);
    const below = children[number].map((child) => row[child]);
    row[number] = below.length ? (below[0] + below[below.length - 1]) / 2 : rows++;
  };
  nodes.forEach((node, number) => {
    if (node.parent < 0) place(number);
  });
  return { row, rows };
}

/**
 * @param {TreeNode[]} nodes
 * @returns {string[]} why no future goes on from each node: its own reason, or that of what followed; "" where one does
 */
export function reasons(nodes) {
  const children = childrenOf(nodes);
  const why = nodes.map((node) => node.why);
  for (let number = nodes.length - 1; number >= 0; number--) {
    const below = children[number];
    if (!why[number] && below.length && below.every((child) => why[child]) && !nodes[number].decided) {
      why[number] = "all that followed was abandoned";
    }
  }
  return why;
}

/**
 * @param {TreeNode[]} nodes
 * @param {number} number
 * @returns {{ noises: string, story: string }} as the Live tab takes it
 */
export function recipe(nodes, number) {
  const path = lineage(nodes, number);
  const lines = path.flatMap((at, chunk) => nodes[at].changes.map((change) => `${chunk + 1}: ${change}`));
  return { noises: path.map((at) => nodes[at].noise).join(","), story: lines.join("\n") };
}

/** @param {number} bytes @returns {string} */
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

/** @param {number} cluster @returns {string} its letter */
export const letter = (cluster) => String.fromCharCode(65 + (cluster % 26));

/** @param {TreeNode} node @returns {string} its reward and what it is made of, or what was predicted of it */
export function rewardOf(node) {
  if (node.predicted) return `${node.reward.toFixed(2)}, predicted and not measured`;
  const parts = Object.entries(node.parts).map(([name, value]) => `${name} ${value.toFixed(2)}`);
  return `${node.reward.toFixed(2)}${parts.length > 1 ? ` (${parts.join(", ")})` : ""}`;
}

/** @param {TreeNode} node @param {number} number @param {string} why @returns {string} for screen readers */
export function nameOf(node, number, why) {
  const fate = why ? `abandoned: ${why}` : node.decided ? "on the chosen path" : "goes on";
  const looks = `looks like group ${letter(node.cluster)}`;
  const holds = `holds ${megabytes(node.bytes)} of cache`;
  const first = `Future ${number + 1}, chunk ${node.depth}: ${node.move}`;
  return [first, `reward ${rewardOf(node)}`, looks, holds, fate].join("; ");
}
